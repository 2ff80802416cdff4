import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vqdit.training.ema import update_average
from vqdit.training.state import create_state
from vqdit.training.steps import make_step


def _loss(params, codebook, batch, key):
    error = batch['x'] @ params['w'] - batch['y']
    value = jnp.mean(error**2) * jnp.where(jnp.any(batch['poison'] > 0), jnp.nan, 1.0)
    return value, ({'seen': codebook['seen'] + jnp.sum(batch['x'])}, {'noise': jax.random.uniform(key)})


def _state(optimizer):
    return create_state({'params': {'w': jnp.array([1.0, -2.0])}, 'codebook': {'seen': jnp.zeros(())}}, optimizer)


def _batch(poison=0.0, size=8, seed=0):
    rng = np.random.default_rng(seed)
    return {'x': jnp.asarray(rng.normal(size=(size, 2)), jnp.float32),
            'y': jnp.asarray(rng.normal(size=size), jnp.float32), 'poison': jnp.full((size,), poison)}


def test_a_step_is_gradient_descent_and_the_average_follows():
    optimizer, batch = optax.sgd(0.1), _batch()
    state, metrics = make_step(_loss, optimizer, ema_decay=0.5)(_state(optimizer), batch, jax.random.key(0))
    x, y = (np.asarray(batch[name], np.float64) for name in 'xy')
    w = np.array([1.0, -2.0])
    gradient = 2 * x.T @ (x @ w - y) / len(y)
    np.testing.assert_allclose(state.params['w'], w - 0.1 * gradient, rtol=1e-5)
    # The average warms up: decay min(0.5, 1/10) at the first step.
    np.testing.assert_allclose(state.ema['w'], 0.1 * w + 0.9 * (w - 0.1 * gradient), rtol=1e-5)
    assert float(metrics['gradient_norm']) == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
    assert int(state.step) == 1 and float(state.codebook['seen']) == pytest.approx(x.sum(), rel=1e-4)


def test_a_step_that_is_not_finite_changes_nothing_but_the_counters():
    optimizer = optax.adam(0.1)
    step = make_step(_loss, optimizer, ema_decay=0.9)
    state, _ = step(_state(optimizer), _batch(), jax.random.key(0))
    poisoned = state
    for count in (1, 2, 3, 4):
        poisoned, metrics = step(poisoned, _batch(poison=1.0), jax.random.key(0))
        assert int(metrics['skipped']) == count
    for name in ('params', 'opt_state', 'ema', 'codebook'):
        jax.tree.map(np.testing.assert_array_equal, getattr(poisoned, name), getattr(state, name))
    assert int(poisoned.step) == 5
    healed, metrics = step(poisoned, _batch(seed=1), jax.random.key(0))
    assert int(metrics['skipped']) == 0 and not np.array_equal(healed.params['w'], state.params['w'])


def test_accumulation_is_the_whole_batch():
    optimizer = optax.sgd(0.1)
    whole, _ = make_step(_loss, optimizer, 0.9)(_state(optimizer), _batch(), jax.random.key(0))
    parts, _ = make_step(_loss, optimizer, 0.9, accumulate=4)(_state(optimizer), _batch(), jax.random.key(0))
    np.testing.assert_allclose(parts.params['w'], whole.params['w'], rtol=1e-5)
    np.testing.assert_allclose(parts.codebook['seen'], whole.codebook['seen'], rtol=1e-4)


def test_every_step_and_every_slice_has_its_own_key():
    optimizer = optax.sgd(0.0)
    step, state, seen = make_step(_loss, optimizer, 0.9), _state(optimizer), []
    for _ in range(3):
        state, metrics = step(state, _batch(), jax.random.key(7))
        seen.append(float(metrics['noise']))
    assert len(set(seen)) == 3
    assert seen[1] == float(jax.random.uniform(jax.random.fold_in(jax.random.key(7), 1)))


def test_average_forgets_the_start_and_then_keeps_its_length():
    average, value = {'w': jnp.zeros(1)}, {'w': jnp.ones(1)}
    for step in range(200):
        average = update_average(average, value, 0.9, jnp.int32(step))
    expected = 1 - np.prod([min(0.9, (1 + t) / (10 + t)) for t in range(200)])
    assert float(average['w'][0]) == pytest.approx(expected, abs=1e-6)
