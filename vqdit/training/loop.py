"""The one training loop: tokenizers and diffusion differ in the loss, the batches and what is shown."""

import contextlib
import logging
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vqdit.errors import CheckpointError, NonFiniteError
from vqdit.performance.cost import StepCost
from vqdit.training.checkpoints import Checkpoints
from vqdit.training.collapse import CollapseWatch
from vqdit.training.compilation import Step, compile_report, compile_step
from vqdit.training.interruption import Request, StopFlag
from vqdit.training.keys import named_key
from vqdit.training.logging import MetricsLog, Progress
from vqdit.training.sharding import place_batch, planned_tree, replicated, shardings_of
from vqdit.training.state import TrainState, Tree
from vqdit.training.watchdog import Watchdog

logger = logging.getLogger(__name__)
SHOWN = ('loss', 'psnr', 'perplexity', 'skipped')
"""The metrics on the progress line."""
POLLED = 10
"""Steps from one question for a stop to the next where processes must agree on it, which waits for the devices."""


class BatchSource(Protocol):
    """Batches as a pure function of the step."""

    def iterate(self, start_step: int) -> Generator[Any, None, None]: ...


@dataclass(frozen=True)
class Run:
    """What all stages of one run share."""

    config: ConfigDict
    workdir: Path
    mesh: Mesh
    stop: StopFlag
    watchdog: Watchdog


@dataclass(frozen=True)
class Stage:
    """One training: what it is called, how long it goes on, and what it does.

    Attributes:
        name: shown in the log.
        folder: for its checkpoints and metrics.
        section: its settings, as `defaults.optimization` lists them.
        step: `(state, batch, root key) -> (state, metrics)`.
        batches: of host arrays.
        companions: trees stored in every checkpoint beside the state, such as the frozen tokenizers.
        show: called with the step and the state at `logging.samples_every` steps.
        tokens: of an example, where it has any.
    """

    name: str
    folder: str
    section: ConfigDict
    step: Step
    batches: BatchSource
    companions: dict[str, Tree]
    show: Callable[[int, TrainState], None] | None = None
    tokens: int = 0


def fit(stage: Stage, create: Callable[[], TrainState], run: Run) -> TrainState:
    """Trains from the newest good checkpoint, or from `create()`, to the last step; returns the state.

    The result does not depend on how often the run was stopped and resumed. Raises Preempted after saving when a
    stop was asked for, and NonFiniteError after `reliability.max_skipped` bad steps in a row.
    """
    planned = planned_tree(create, run.config.sharding_rules, run.mesh)
    with Checkpoints(f'{stage.folder}/checkpoints', keep=run.config.checkpoints.keep) as checkpoints:
        state = _restore(checkpoints, planned, stage)
        if state is None:
            state = jax.jit(create, out_shardings=shardings_of(planned))()
        if int(state.step) < stage.section.steps:
            state = _train(stage, state, checkpoints, run)
    return state


def _restore(checkpoints: Checkpoints, planned: Tree, stage: Stage) -> TrainState | None:
    restored = checkpoints.restore({'state': planned})
    if restored is None:
        return None
    step, trees, _ = restored
    if step > stage.section.steps:
        raise CheckpointError(f'{stage.folder} was trained for {step} steps, more than the {stage.section.steps} '
                              'asked for; put back the config.json that was there, or choose another workdir')
    return trees['state']


def _train(stage: Stage, state: TrainState, checkpoints: Checkpoints, run: Run) -> TrainState:
    config, steps, everywhere = run.config, stage.section.steps, replicated(run.mesh)
    # Made under jit, which also reaches the devices of other processes.
    root = jax.jit(lambda: named_key(config.seed, stage.name), out_shardings=everywhere)()
    start, previous = int(state.step), None
    with contextlib.closing(stage.batches.iterate(start)) as batches, _Journal(stage, start, config) as journal:
        first = place_batch(next(batches), run.mesh)
        run.watchdog.arm(f'compiling {stage.name}', factor=10)
        compiled, journal.cost = compile_step(stage.step, run.mesh, state, first, root)
        logger.info(compile_report(stage.name, state, journal.cost))
        for number in range(start + 1, steps + 1):
            batch = first if number == start + 1 else place_batch(next(batches), run.mesh)
            state, metrics = compiled(state, batch, root)
            run.watchdog.arm(f'{stage.name}, step {number}')
            # The metrics of the step before are read while this one runs.
            if previous is not None:
                journal.read(number - 1, previous)
            previous = metrics
            last = number == steps
            request = run.stop.poll() if is_polled(number, steps, jax.process_count()) else Request.NONE
            if last or request or number % config.checkpoints.every == 0:
                journal.read(number, previous)
                previous = None
                checkpoints.save(number, {'state': state} | stage.companions, wait=last or request is Request.STOP)
            if request is Request.STOP:
                run.stop.raise_if_set()
            if stage.show and (last or number % config.logging.samples_every == 0):
                run.watchdog.arm(f'{stage.name}, samples at step {number}', factor=10)
                stage.show(number, state)
    return state


def is_polled(number: int, steps: int, processes: int) -> bool:
    """Whether step `number` of `steps` ends with the question for a stop: the same answer on all processes."""
    return processes == 1 or number % POLLED == 0 or number == steps


class _Journal:
    """Reads the metrics of every step: logs some of them, and stops a run that is no longer finite."""

    def __init__(self, stage: Stage, start: int, config: ConfigDict):
        self._stage, self._config = stage, config
        self.cost: StepCost | None = None
        self._log = MetricsLog(stage.folder, start)
        self._collapse = CollapseWatch()
        self._progress = Progress(stage.name, stage.section.steps, start, stage.section.batch_size, 'examples')

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.__exit__(*exception)
        self._log.__exit__(*exception)

    def read(self, number: int, metrics: dict[str, jax.Array]) -> None:
        skipped = int(metrics['skipped'])
        if skipped > self._config.reliability.max_skipped:
            found = {name: float(value) for name, value in metrics.items()}
            bad = {name: value for name, value in found.items() if not math.isfinite(value)} or {'loss': found['loss']}
            raise NonFiniteError(f'{self._stage.name}: a loss or a gradient was not finite for {skipped} steps up to '
                                 f'step {number} ({", ".join(f"{name} {value}" for name, value in bad.items())}); '
                                 'lower the learning rate or check the data')
        for line in self._collapse.read(metrics):
            logger.warning('%s, step %d: %s', self._stage.name, number, line)
        self._progress.update(number, {name: value for name, value in metrics.items() if name in SHOWN})
        if number % self._config.logging.every == 0 or number == self._stage.section.steps or skipped:
            self._log.write(number, {**metrics, **self._speed()})

    def _speed(self) -> Mapping[str, float]:
        """Means since the second step of this run; what each figure means stands in docs/performance.md."""
        seconds, examples = self._progress.seconds_per_step, self._progress.items_per_second
        speed = {'examples_per_second': examples}
        if self._stage.tokens:
            speed['tokens_per_second'] = examples * self._stage.tokens
        if self.cost is not None:
            speed['flops_per_second'] = self.cost.flops.model / seconds if seconds else math.nan
            utilization = self.cost.utilization(seconds) if seconds else None
            speed |= {'mfu': utilization} if utilization is not None else {}
        return speed
