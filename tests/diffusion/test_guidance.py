import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from vqdit.diffusion.clock import ABSENT, GENERATED, GIVEN
from vqdit.diffusion.guidance import (
    Interval,
    Projected,
    Rescaled,
    Scale,
    ZeroStar,
    autoguided,
    cosine,
    fading,
    guided,
    guided_by_each,
)
from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout, TokenSpec

RNG = np.random.default_rng(0)
C, U = (jnp.asarray(RNG.normal(size=(2, 4, 5)), jnp.float32) for _ in range(2))
HALF = jnp.full((2, 1, 1), 0.5)
C64, U64, HALF64 = (np.asarray(x, np.float64) for x in (C, U, HALF))
EACH = [Scale, Projected, lambda w: Rescaled(Scale(w)), lambda w: Interval(Scale(w), 0.0, 1.0),
        lambda w: Projected(w, eta=1.0)]


@pytest.mark.parametrize('make', EACH)
def test_no_weight_and_equal_predictions_change_nothing(make):
    with jax.enable_x64(True):
        np.testing.assert_allclose(make(1.0)(C64, U64, HALF64), C64, rtol=0, atol=1e-6)
        np.testing.assert_allclose(make(7.0)(C64, C64, HALF64), C64, rtol=0, atol=1e-6)


def test_one_convention_on_all_channels():
    np.testing.assert_array_equal(Scale(0.0)(C, U, HALF), U)
    np.testing.assert_allclose(Scale(3.0)(C, U, HALF), U + 3 * (C - U), rtol=1e-6)
    moved = np.abs(np.asarray(Scale(3.0)(C, U, HALF) - C)).reshape(-1, 5).max(0)
    assert (moved > 0.1).all()
    with jax.enable_x64(True):
        plain = Scale(3.0)(C64, U64, HALF64)
        np.testing.assert_allclose(Projected(3.0, eta=1.0)(C64, U64, HALF64), plain, rtol=0, atol=1e-6)


def test_guidance_of_two_gaussians_is_their_product_of_powers():
    """Scores of N(1, 1) and N(0, 4): the guided one is that of p(x | c)^w p(x)^(1 - w)."""
    x, w = jnp.linspace(-2, 2, 5), 1.5
    c, u = -(x - 1.0), -x / 4.0
    precision = w + (1 - w) / 4
    np.testing.assert_allclose(Scale(w)(c, u, x), -precision * (x - w / precision), rtol=1e-5)


def test_an_interval_is_bitwise_the_condition_outside():
    t = jnp.array([0.1, 0.9]).reshape(2, 1, 1)
    found = Interval(Scale(4.0), 0.2, 1.0)(C, U, t)
    np.testing.assert_array_equal(found[0], C[0])
    np.testing.assert_array_equal(found[1], Scale(4.0)(C, U, t)[1])
    with pytest.raises(UserError, match='low end first'):
        Interval(Scale(4.0), 0.8, 0.2)


def test_schedules_of_the_weight():
    t = jnp.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(fading(3.0)(t), [3, 2, 1], rtol=1e-6)
    np.testing.assert_allclose(fading(3.0, 2.0)(t), [3, 1.5, 1], rtol=1e-6)
    np.testing.assert_allclose(cosine(3.0)(t), [3, 2, 1], rtol=1e-6)


def test_rescaling_projecting_and_zero_star():
    full = Rescaled(Scale(5.0), 1.0)(C, U, HALF)
    np.testing.assert_allclose(np.std(full, axis=(1, 2)), np.std(C, axis=(1, 2)), rtol=1e-5)
    change = np.asarray(Projected(3.0)(C, U, HALF) - C)
    np.testing.assert_allclose((change * np.asarray(C)).sum((1, 2)), 0, atol=1e-4)
    short = np.asarray(Projected(2.0, 1.0, radius=0.5)(C, U, HALF) - C)
    np.testing.assert_allclose(np.sqrt((short**2).sum((1, 2))), 0.5, rtol=1e-5)
    with jax.enable_x64(True):
        np.testing.assert_allclose(ZeroStar(4.0)(C64, 2.5 * C64, HALF64), C64, rtol=0, atol=1e-6)
    assert (ZeroStar(4.0, still=0.4)(C, U, HALF) == 0).all()


def _logits(codes, clock):
    """A denoiser that looks at every token and noise level."""
    x = codes.astype(jnp.float32)[..., None] * jnp.arange(1.0, 4.0)[None, None]
    mixed = jnp.sin(x) + jnp.sum(jnp.cos(x) * (1.0 - clock)[..., None], axis=1, keepdims=True)
    return {'a': mixed[:, :1], 'b': mixed[:, 1:2], 'c': mixed[:, 2:]}


LAYOUT = TokenLayout({name: TokenSpec((1,), 3) for name in 'abc'})
ROLES, CODES = jnp.array([[GIVEN, GIVEN, GENERATED]]), jnp.array([[0, 1, 3]])
CLOCK = jnp.array([[0.0, 0.0, 0.7]])


def _log(logits):
    return np.asarray(jax.nn.log_softmax(logits['c']))


def test_a_negative_condition_takes_the_place_of_none():
    negative = jnp.array([[2, 2, 0]])
    found = guided(_logits, LAYOUT, ROLES, 2.0, negative)(CODES, CLOCK)['c']
    c, u = _log(_logits(CODES, CLOCK)), _log(_logits(jnp.array([[2, 2, 3]]), CLOCK))
    np.testing.assert_allclose(found, u + 2 * (c - u), atol=1e-5)


def test_a_weight_for_each_condition():
    weights = {'a': 2.0, 'b': 0.5}
    found = guided_by_each(_logits, LAYOUT, ROLES, weights)(CODES, CLOCK)['c']
    u = _log(_logits(jnp.array([[3, 3, 3]]), jnp.array([[1.0, 1.0, 0.7]])))
    a = _log(_logits(jnp.array([[0, 3, 3]]), jnp.array([[0.0, 1.0, 0.7]])))
    b = _log(_logits(jnp.array([[3, 1, 3]]), jnp.array([[1.0, 0.0, 0.7]])))
    np.testing.assert_allclose(found, u + 2 * (a - u) + 0.5 * (b - u), atol=1e-5)
    one = jnp.array([[GIVEN, ABSENT, GENERATED]])
    codes, clock = jnp.array([[0, 3, 3]]), jnp.array([[0.0, 1.0, 0.7]])
    np.testing.assert_allclose(guided_by_each(_logits, LAYOUT, one, {'a': 2.0})(codes, clock)['c'],
                               guided(_logits, LAYOUT, one, 2.0)(codes, clock)['c'], atol=1e-5)
    with pytest.raises(UserError, match='not in this model'):
        guided_by_each(_logits, LAYOUT, ROLES, {'d': 1.0})


def test_autoguidance_by_the_same_network_is_none():
    found = autoguided(_logits, _logits, LAYOUT, Scale(3.0))(CODES, CLOCK)['c']
    np.testing.assert_allclose(found, _log(_logits(CODES, CLOCK)), atol=1e-6)


def test_codes_that_are_ruled_out_stay_finite():
    """Predictions of minus infinity, as truncation makes them, must not turn into NaN."""
    denoiser = lambda codes, clock: {'toy': jnp.where(jnp.arange(3)[None, None] == 0, -jnp.inf, jnp.zeros((2, 3, 3)))}
    roles = jnp.array([[GIVEN, GENERATED, GENERATED]])
    found = guided(denoiser, toy.LAYOUT, roles, 3.0)(jnp.zeros((1, 3), jnp.int32), jnp.zeros((1, 3)))['toy']
    assert np.isfinite(found).all() and (found[..., 0] < -1000).all()
