"""Checkpoints written in the background, whole or not at all, and verified when read.

A checkpoint is the folder `<step>` with one Orbax pytree for every named tree, stored as nested dicts by
path, and a record of what was saved (`checkpoint_record`). Orbax's free functions are used rather than its
`training.Checkpointer`, which does not start over a damaged metrics file, raises the error of a failed save a
second time instead of saving, and can be killed halfway through a deletion.
"""

import logging
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
from orbax.checkpoint import v1 as ocp

from vqdit.errors import DiskError
from vqdit.training import checkpoint_record, fingerprint
from vqdit.training.checkpoint_reader import CheckpointReader, Trees, nested, one_line
from vqdit.training.processes import any_process

FREE_SPACE_FACTOR = 1.2
DELETED = '.deleted'
LEFTOVERS = ('*.orbax-checkpoint-tmp', f'*{DELETED}')

Result = TypeVar('Result')
logger = logging.getLogger(__name__)


class Checkpoints(CheckpointReader):
    """Writes checkpoints and keeps the newest `keep` and the best; use it in a `with`, and one a folder.

    What a killed run left half written is removed at the start.
    """

    def __init__(self, folder: str | Path, keep: int = 2, best_metric: str | None = None):
        """The best has the lowest `best_metric` of the metrics saved. Raises DiskError."""
        super().__init__(folder, best_metric)
        self._keep = keep
        self._pending: tuple[int, ocp.AsyncResponse] | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f'cannot make {self.folder}: {error.strerror}; choose another folder') from error
        self._remove_leftovers()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Waits, because a process that leaves in the middle of a save never ends."""
        try:
            self.wait()
        except DiskError as late:
            if error is None:
                raise
            logger.warning('%s', late)

    def save(
        self,
        step: int,
        trees: Trees,
        metrics: Mapping[str, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
        wait: bool = False,
    ) -> None:
        """Begins to save `trees`, whose arrays may be donated once this returns; leaves a known step alone.

        Metrics and metadata are JSON. Raises NonFiniteError naming a leaf with NaN or infinity, and DiskError
        when there is too little space or the save before this one failed; older checkpoints stay as they are.
        """
        self.wait()
        if step in self.steps:
            return
        record = checkpoint_record.make(step, trees, metrics or {}, metadata or {})
        self._check_space(step, sum(leaf.nbytes for leaf in jax.tree.leaves(dict(trees))))
        leaves = {name: fingerprint.leaves_by_path(tree) for name, tree in trees.items()}
        stored = {name: nested(leaves[name]) for name in leaves if leaves[name]}
        response = self._attempt(
            step,
            lambda: ocp.save_checkpointables_async(
                self._path(step),
                stored,
                overwrite=step in self._damaged,
                custom_metadata=checkpoint_record.sealed(record),
            ),
        )
        self._pending = step, response
        if wait:
            self.wait()

    def wait(self) -> None:
        """Ends the save under way and deletes what need not be kept. Raises DiskError if that save failed."""
        if self._pending is None:
            return
        step, response = self._pending
        try:
            self._attempt(step, response.result)
        except Exception:  # Told once; after Ctrl-C instead the save is still under way.
            self._pending = None
            raise
        self._pending = None
        self._damaged.discard(step)
        if jax.process_index() == 0:
            for unwanted in self._unwanted(step):
                self._delete(self._path(unwanted))
        self._damaged.clear()

    def _unwanted(self, saved: int) -> set[int]:
        """Steps to delete now that `saved` is complete: damaged ones, and all but the newest and the best."""
        return (self._damaged | set(self.steps)) - {
            saved,
            *self.steps[-self._keep :],
            *self._best_first()[:1],
        }

    def _attempt(self, step: int, action: Callable[[], Result]) -> Result:
        try:
            return action()
        except (OSError, ValueError) as error:  # tensorstore reports a full disc as ValueError.
            self._remove_leftovers()
            raise DiskError(
                f'cannot write the checkpoint of step {step} to {self.folder} ({one_line(error)}); '
                f'the newest complete one is {self.latest_step}; free space, then run the same command again'
            ) from error

    def _check_space(self, step: int, size: int) -> None:
        free = self._attempt(step, lambda: shutil.disk_usage(self.folder).free)
        needed = math.ceil(FREE_SPACE_FACTOR * size)
        if any_process(free < needed)[0]:
            raise DiskError(
                f'{self.folder} has {free / 1e6:.0f} MB free, a checkpoint needs {needed / 1e6:.0f} MB; '
                f'the newest complete one is {self.latest_step}; free space, then run the same command again'
            )

    def _remove_leftovers(self) -> None:
        if jax.process_index() == 0:
            for pattern in LEFTOVERS:
                for path in self.folder.glob(pattern):
                    shutil.rmtree(path, ignore_errors=True)

    def _delete(self, path: Path) -> None:
        """Renames first: a kill in between leaves a leftover, never half a checkpoint."""
        shutil.rmtree(path.rename(path.with_name(path.name + DELETED)), ignore_errors=True)
