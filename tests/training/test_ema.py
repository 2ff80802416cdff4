import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.training.ema import (
    Average,
    combined,
    deviation_of,
    exponent_of,
    power,
    reconstruction,
    update_average,
    warmed,
    weights_of,
)

STEPS = 240
WALK = np.cumsum(np.random.default_rng(0).normal(size=(STEPS + 1, 3)) / 10, axis=0)


def _tracked(decay, steps=STEPS):
    """The averages after every step, [steps, 3], of parameters that walk about."""
    def body(average, item):
        step, params = item
        average = update_average({'x': average}, {'x': params}, decay, step)['x']
        return average, average

    walk = jnp.asarray(WALK, jnp.float32)
    return np.asarray(jax.jit(lambda: jax.lax.scan(body, walk[0], (jnp.arange(steps), walk[1:steps + 1])))()[1])


def _by_products(decays):
    """Equation (1) in float64: the weights of the parameters after every step."""
    after = np.append(np.cumprod(decays[::-1])[::-1][1:], 1.0)
    return (1 - decays) * after


def test_a_constant_decay_has_its_closed_form():
    b = 0.9
    found = _tracked(lambda step: jnp.full((), b))[-1]
    weights = (1 - b) * b ** np.arange(STEPS)[::-1]
    np.testing.assert_allclose(found, b**STEPS * WALK[0] + weights @ WALK[1:], rtol=0, atol=1e-6)


def test_the_warmed_decay_follows_its_products():
    steps = np.arange(STEPS)
    decays = np.minimum(0.95, (1 + steps) / (10 + steps))
    found = _tracked(0.95)[-1]
    np.testing.assert_allclose(found, np.prod(decays) * WALK[0] + _by_products(decays) @ WALK[1:], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(_tracked(warmed(0.95))[-1], found)


@pytest.mark.parametrize('exponent', [0.0, 6.94, 16.97])
def test_the_power_average_has_its_closed_form(exponent):
    steps = np.arange(1, STEPS + 1)
    weights = weights_of(Average(exponent, STEPS), STEPS)
    np.testing.assert_allclose(weights, _by_products((1 - 1 / steps) ** (exponent + 1)), atol=1e-15)
    assert weights.sum() == pytest.approx(1.0, abs=1e-12), 'nothing is left of the start'
    np.testing.assert_allclose(_tracked(power(exponent))[-1], weights @ WALK[1:], rtol=0, atol=1e-6)
    many = weights_of(Average(exponent, 100_000), 100_000)
    place = np.arange(1, 100_001) / 100_000
    spread = np.sqrt(many @ place**2 - (many @ place) ** 2)
    assert spread == pytest.approx(deviation_of(exponent), rel=1e-4)


def test_deviations_and_exponents_are_one_another():
    for deviation in (0.01, 0.05, 0.1, 0.2):
        assert deviation_of(exponent_of(deviation)) == pytest.approx(deviation, rel=1e-9)
    # The two averages that EDM2 tracks.
    assert exponent_of(0.05) == pytest.approx(16.97, abs=0.01) and exponent_of(0.1) == pytest.approx(6.94, abs=0.01)
    for deviation in (0.0, 0.3):
        with pytest.raises(UserError, match='at most'):
            exponent_of(deviation)


def _stored(every):
    kept = [Average(exponent_of(d), n) for n in range(every, STEPS + 1, every) for d in (0.05, 0.1)]
    paths = {exponent_of(d): _tracked(power(exponent_of(d))) for d in (0.05, 0.1)}
    return kept, [{'x': paths[a.exponent][a.steps - 1]} for a in kept]


def test_what_is_stored_is_reproduced():
    kept, trees = _stored(30)
    weights = reconstruction(kept, kept[5])
    np.testing.assert_allclose(weights, np.arange(len(kept)) == 5, atol=1e-6)
    np.testing.assert_allclose(combined(trees, weights)['x'], trees[5]['x'], atol=1e-6)


@pytest.mark.parametrize('deviation', [0.07, 0.12])
def test_an_average_that_nobody_tracked_is_found_afterwards(deviation):
    """Against one that was tracked all along: the nearer, the more is stored, down to 1e-6 of the parameters."""
    wanted, walk = Average(exponent_of(deviation), STEPS), np.abs(WALK).max()
    truth, gaps = _tracked(power(wanted.exponent))[-1], []
    for every in (24, 8, 2):
        kept, trees = _stored(every)
        found = combined(trees, reconstruction(kept, wanted))['x']
        gaps.append(np.abs(found - truth).max() / walk)
    assert gaps[0] < 2e-3 and gaps[1] < 1e-4 and gaps[2] < 1e-6, gaps


def test_an_average_of_a_step_that_was_not_stored_is_refused():
    kept, _ = _stored(120)
    for steps in (60, 121, STEPS + 1):
        with pytest.raises(UserError, match=f'step {steps}'):
            reconstruction(kept, Average(6.94, steps))
