import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from vqdit.errors import CheckpointError, NonFiniteError, Preempted
from vqdit.training.defaults import defaults, optimization
from vqdit.training.interruption import StopFlag
from vqdit.training.loop import Run, Stage, fit, is_polled
from vqdit.training.sharding import make_mesh
from vqdit.training.state import create_state
from vqdit.training.steps import make_step
from vqdit.training.watchdog import Watchdog

OPTIMIZER = optax.adam(0.05)


def _loss(params, codebook, batch, key):
    error = batch['x'] @ params['w'] - 1.0 + 0.1 * jax.random.normal(key)
    return jnp.mean(error**2) + jnp.sum(batch['poison']), (codebook, {})


def _create():
    return create_state({'params': {'w': jnp.zeros(2)}}, OPTIMIZER)


class Batches:
    """A pure function of the step; `poisoned` steps hold NaN, and `before` is called ahead of each batch."""

    def __init__(self, poisoned=(), before=lambda step: None):
        self.poisoned, self.before = poisoned, before

    def iterate(self, start_step=0):
        step = start_step
        while True:
            self.before(step)
            x = np.random.default_rng(step).normal(size=(8, 2)).astype(np.float32)
            yield {'x': x, 'poison': np.full(8, np.nan if step in self.poisoned else 0.0, np.float32)}
            step += 1


def _config(**checkpoints) -> ConfigDict:
    config = defaults()
    config.reliability.max_skipped = 2
    config.logging.every = 1
    config.checkpoints.update(every=3, **checkpoints)
    return config


def _fit(folder: Path, steps=10, batches=None, show=None, **mesh):
    config = _config()
    config.sharding_rules = (('w', ('fsdp',)),)
    config.mesh.update(mesh)
    stage = Stage('toy', str(folder), optimization(steps, 8, 0.05), make_step(_loss, OPTIMIZER, 0.9),
                  batches or Batches(), {'companion': {'frozen': jnp.arange(3.0)}}, show)
    with StopFlag(folder) as stop, Watchdog(60) as watchdog:
        return fit(stage, _create, Run(config, folder, make_mesh(config.mesh), stop, watchdog))


def _rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def test_a_stopped_run_goes_on_bitwise_and_logs_every_step_once(tmp_path):
    whole = _fit(tmp_path / 'whole')
    stopped = tmp_path / 'stopped'
    stopped.mkdir()
    with pytest.raises(Preempted, match='STOP'):
        _fit(stopped, batches=Batches(before=lambda step: (stopped / 'STOP').touch() if step == 5 else None))
    resumed = _fit(stopped)
    for part in ('params', 'ema', 'opt_state', 'step'):
        jax.tree.map(np.testing.assert_array_equal, getattr(resumed, part), getattr(whole, part))
    assert [row['step'] for row in _rows(stopped)] == list(range(1, 11))
    assert [row['loss'] for row in _rows(stopped)] == [row['loss'] for row in _rows(tmp_path / 'whole')]


def test_a_run_goes_on_with_another_mesh(tmp_path):
    whole = _fit(tmp_path / 'whole')
    folder = tmp_path / 'moved'
    folder.mkdir()
    with pytest.raises(Preempted):
        _fit(folder, batches=Batches(before=lambda step: (folder / 'STOP').touch() if step == 5 else None))
    moved = _fit(folder, data=2, fsdp=2, tensor=2)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5)
    jax.tree.map(close, (moved.params, moved.ema, moved.opt_state), (whole.params, whole.ema, whole.opt_state))
    assert moved.params['w'].sharding.spec == PartitionSpec('fsdp')


def test_the_log_holds_the_speed(tmp_path):
    _fit(tmp_path)
    row = _rows(tmp_path)[-1]
    # A product of 8 x 2 by 2 numbers and its gradient: 2 x 32 FLOPs; a CPU has no peak to compare with.
    assert row['flops_per_second'] / row['examples_per_second'] == pytest.approx(64 / 8)
    assert 'mfu' not in row and 'tokens_per_second' not in row


def test_one_bad_batch_is_skipped_and_many_end_the_run(tmp_path):
    state = _fit(tmp_path / 'one', batches=Batches(poisoned=(4,)))
    assert np.isfinite(np.asarray(state.params['w'])).all() and int(state.step) == 10
    assert [row['skipped'] for row in _rows(tmp_path / 'one')] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    with pytest.raises(NonFiniteError, match=r'3 steps up to step 7 \(loss nan\)'):
        _fit(tmp_path / 'many', batches=Batches(poisoned=range(4, 10)))


def test_a_finished_stage_takes_no_step_and_a_longer_one_is_not_shortened(tmp_path):
    _fit(tmp_path)
    assert int(_fit(tmp_path, batches=Batches(poisoned=range(100))).step) == 10
    with pytest.raises(CheckpointError, match='10 steps, more than the 5'):
        _fit(tmp_path, steps=5)


def test_samples_are_shown_at_the_end(tmp_path):
    shown = []
    _fit(tmp_path, show=lambda step, state: shown.append((step, int(state.step))))
    assert shown == [(10, 10)]


def test_several_processes_are_asked_for_a_stop_every_tenth_step_and_at_the_last():
    assert [step for step in range(1, 26) if is_polled(step, 25, processes=2)] == [10, 20, 25]
    assert all(is_polled(step, 25, processes=1) for step in range(1, 26))
