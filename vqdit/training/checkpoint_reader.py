"""Reading of checkpoints: from the newest to the oldest until one is whole."""

import contextlib
import gc
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import traverse_util
from orbax.checkpoint import v1 as ocp

from vqdit.errors import CheckpointError
from vqdit.training import checkpoint_record, fingerprint
from vqdit.training.processes import any_process

Trees = Mapping[str, Any]
logger = logging.getLogger(__name__)


class Restored(NamedTuple):
    """A verified checkpoint: its step, its trees in the structure asked for, and the caller's metadata."""

    step: int
    trees: dict[str, Any]
    metadata: dict[str, Any]


class CheckpointReader:
    """Reads the checkpoints of a folder and never changes it; it may stand beside a running training."""

    def __init__(self, folder: str | Path, best_metric: str | None = None):
        """`best_metric` names the metric whose lowest value makes a checkpoint the best."""
        self.folder = Path(folder).absolute()
        self._best_metric = best_metric
        self._damaged: set[int] = set()
        for name in ('absl', 'asyncio'):
            logging.getLogger(name).addFilter(_no_orbax_traceback)

    @property
    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, ascending, without those already found damaged."""
        paths = self.folder.iterdir() if self.folder.is_dir() else []
        return sorted(
            {int(path.name) for path in paths if path.name.isdecimal() and path.is_dir()} - self._damaged
        )

    @property
    def latest_step(self) -> int | None:
        """The newest step, not yet verified, or None."""
        return self.steps[-1] if self.steps else None

    def metadata(self, step: int) -> dict[str, Any]:
        """What the caller gave to `save` as metadata. Raises CheckpointError if it is missing or damaged."""
        return self._record(step)['metadata']

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics given to `save`. Raises CheckpointError if they are missing or damaged."""
        return self._record(step)['metrics']

    def restore(self, abstract_trees: Trees, step: int | None = None) -> Restored | None:
        """The newest whole checkpoint (or that of `step`), or None where the folder holds none.

        `abstract_trees` names the trees to read, all of those saved or some, as ShapeDtypeStructs with
        shardings on any devices; a leaf without one goes to the first device. Raises CheckpointError when a
        leaf has another shape or dtype, when the checkpoint of `step` is damaged, and when all are.
        """
        if step is not None:
            return self._load(abstract_trees, step)
        return self._first_whole(abstract_trees, reversed(self.steps))

    def restore_best(self, abstract_trees: Trees) -> Restored | None:
        """As `restore`, in the order of `best_metric`; those without that metric come last, newest first."""
        return self._first_whole(abstract_trees, self._best_first())

    def _first_whole(self, abstract_trees: Trees, steps: Iterable[int]) -> Restored | None:
        failures = []
        for step in steps:
            try:
                return self._load(abstract_trees, step)
            except checkpoint_record.Damaged as damage:
                self._damaged.add(step)
                failures.append(str(damage))
                logger.warning('%s; trying the next one', damage)
        if failures:
            raise CheckpointError(
                f'no whole checkpoint in {self.folder} ({"; ".join(failures)}); '
                'put a copy back, or delete the folder to begin anew'
            )
        return None

    def _load(self, abstract_trees: Trees, step: int) -> Restored:
        record = self._record(step)
        leaves = {name: fingerprint.leaves_by_path(tree) for name, tree in abstract_trees.items()}
        for name in abstract_trees:
            checkpoint_record.compare(record, name, leaves[name], self._path(step))
        stored = {name: _placed(nested(leaves[name])) for name in leaves if leaves[name]}
        loaded = _everywhere(step, lambda: ocp.load_checkpointables(self._path(step), stored) if stored else {})
        # Verification gathers: where one process has failed to load, the others would wait for it for ever.
        verify = lambda name, tree: _verified(record, name, tree, loaded.get(name, {}))
        trees = _everywhere(step, lambda: {name: verify(name, tree) for name, tree in abstract_trees.items()})
        return Restored(step, trees, record['metadata'])

    def _record(self, step: int) -> checkpoint_record.Record:
        if not self._path(step).is_dir():
            raise CheckpointError(f'no checkpoint of step {step} in {self.folder}; there are {self.steps}')
        return checkpoint_record.read(self._path(step))

    def _best_first(self) -> list[int]:
        return sorted(self.steps, key=lambda step: (self._score(step), -step))

    def _score(self, step: int) -> float:
        try:
            score = self.metrics(step).get(self._best_metric or '', math.inf)
        except CheckpointError:
            score = math.inf
        return math.inf if math.isnan(score) else score

    def _path(self, step: int) -> Path:
        return self.folder / str(step)


def _everywhere(step: int, work: Callable[[], Any]) -> Any:
    """What `work` returns. Raises Damaged on all processes when it fails on one."""
    result, reason = None, ''
    with _quiet_orbax():
        try:
            result = work()
        except Exception as error:  # Orbax answers damage with errors of many unrelated types.
            reason = one_line(error)
        if reason:
            gc.collect()  # Ends what Orbax left behind while nobody listens to its complaints.
    if any_process(bool(reason))[0]:
        reason = reason or 'seen by another process'
        raise checkpoint_record.Damaged(f'checkpoint of step {step} is damaged ({reason})')
    return result


def _verified(record: checkpoint_record.Record, name: str, abstract: Any, loaded: Mapping[str, Any]) -> Any:
    """The loaded tree `name` in the structure asked for. Raises ValueError unless it is as it was saved."""
    found = traverse_util.flatten_dict(loaded, sep='/')
    checkpoint_record.verify(record, name, found)
    leaves = [found[path] for path in fingerprint.leaves_by_path(abstract)]
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by path as nested dicts, the form in which every kind of tree is stored."""
    return traverse_util.unflatten_dict(leaves, sep='/')


def _placed(tree: Any) -> Any:
    """Abstract leaves that all say where they go; Orbax would else read the devices of the saving run."""
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, 'sharding', None) or first)

    return jax.tree.map(place, tree)


def one_line(error: BaseException) -> str:
    """The first cause of an error, shortened."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f'{type(error).__name__}: {error}'.splitlines()[0][:200]


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Keeps still the coroutines that Orbax abandons when it fails to load: the error itself says enough."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'coroutine .* was never awaited', RuntimeWarning)
            yield
    finally:
        sys.unraisablehook = hook


def _no_orbax_traceback(record: logging.LogRecord) -> bool:
    """Drops the tracebacks that Orbax logs in every thread for an error that is raised as one line anyway."""
    return not (record.exc_info and ('orbax' in record.pathname or 'asyncio' in record.pathname))
