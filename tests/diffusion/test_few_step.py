"""Few-step models on normal data, whose flow is linear and known: z_r = z_t size(r) / size(t)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from normal_flow import NODES, WEIGHTS, average_velocity, pairs

from vqdit.diffusion.few_step import (
    SelfConditioned,
    adaptive,
    bounded,
    conditional_velocity,
    consistency_levels,
    consistency_loss,
    doubled,
    level_at,
    mean_flow_loss,
    mean_flow_target,
    place_of,
    pseudo_huber,
    sample_by_consistency,
    self_conditioned,
    shortcut_loss,
    shortcut_target,
    stride_along,
)
from vqdit.diffusion.gaussian import Exploding, Flow, PreservingLinear, Trigonometric
from vqdit.diffusion.samplers import DDIM, DPMSolverPlusPlus, sample_keys, solve

DEVIATION = 0.7
PATHS = [Flow(), Trigonometric()]
RNG = np.random.default_rng(0)


def _size(path, t):
    return jnp.sqrt((path.alpha(t) * DEVIATION) ** 2 + path.sigma(t) ** 2)


def _average(path):
    return average_velocity(lambda t: _size(path, t))


def test_the_exact_average_velocity_is_its_own_target():
    """MeanFlow's identity under the velocity of the flow, its mean under those of single pairs, and its derivative
    against finite differences of another function."""
    with jax.enable_x64(True):
        path = Trigonometric()
        z, average = jnp.asarray(RNG.normal(size=(5, 1))), jax.jit(_average(path))
        t, r = jnp.asarray([0.9, 0.8, 0.5, 0.7, 0.3]), jnp.asarray([0.1, 0.5, 0.4, 0.7, 0.0])
        target_of = jax.jit(mean_flow_target, static_argnums=0)
        u, target = target_of(average, z, average(z, t, t), r, t)
        np.testing.assert_allclose(target, u, atol=1e-10)

        # The pairs behind one z: noise = c z + rest, with x and noise normal; the target is linear in their velocity.
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        size = _size(path, t)[:, None]
        rest = alpha * DEVIATION / size
        total = jnp.zeros_like(u)
        for node, weight in zip(NODES, WEIGHTS / WEIGHTS.sum()):
            noise = sigma / size**2 * z + rest * node
            _, velocity = conditional_velocity(path, (z - sigma * noise) / alpha, noise, t)
            total = total + weight * target_of(average, z, velocity, r, t)[1]
        np.testing.assert_allclose(total, u, atol=1e-10)

        other = lambda z, r, t: jnp.sin(3.0 * z) * (t - r**2)[:, None]
        v, h = jnp.cos(z), 1e-6
        _, target = mean_flow_target(other, z, v, r, t)
        change = (other(z + h * v, r, t + h) - other(z - h * v, r, t - h)) / (2 * h)
        np.testing.assert_allclose(target, v - (t - r)[:, None] * change, atol=1e-8)


def test_without_a_stride_mean_flow_and_shortcuts_are_flow_matching():
    with jax.enable_x64(True):
        path, t = Flow(), jnp.asarray([0.2, 0.6, 1.0])
        clean, noise = jnp.asarray(RNG.normal(size=(2, 3, 2)))
        average = lambda z, r, t: jnp.tanh(z) * (1.0 + t - r)[:, None]
        z = (1 - t)[:, None] * clean + t[:, None] * noise
        expected = ((np.tanh(z) - np.asarray(noise - clean)) ** 2).sum(1)
        np.testing.assert_allclose(mean_flow_loss(average, path, clean, noise, t, t), expected, rtol=1e-12)
        np.testing.assert_allclose(shortcut_loss(average, path, clean, noise, t, 0 * t), expected, rtol=1e-12)


@pytest.mark.parametrize('path', PATHS)
def test_shortcuts_of_the_exact_flow_agree_with_themselves(path):
    with jax.enable_x64(True):
        z, average = jnp.asarray(RNG.normal(size=(3, 1))), _average(path)
        t, d = jnp.asarray([1.0, 0.75, 0.5]), jnp.asarray([0.5, 0.125, 0.25])
        target = jax.jit(partial(shortcut_target, average))(z, t, d)
        np.testing.assert_allclose(target, average(z, t - 2 * d, t), atol=1e-12)
        wrong = lambda z, r, t: average(z, r, t) * (1.0 + t - r)[:, None]
        assert np.abs(shortcut_target(wrong, z, t, d) - wrong(z, t - 2 * d, t)).min() > 1e-3
        _, velocity = conditional_velocity(path, z, 2.0 * z, t)
        moved = [path.alpha(t + h)[:, None] * z + path.sigma(t + h)[:, None] * 2.0 * z for h in (-1e-6, 1e-6)]
        np.testing.assert_allclose(velocity, (moved[1] - moved[0]) / 2e-6, atol=1e-8)


@pytest.mark.parametrize('loss', [
    lambda average, x, noise: mean_flow_loss(average, Flow(), x, noise, jnp.full(len(x), 0.2), jnp.full(len(x), 0.9)),
    lambda average, x, noise: shortcut_loss(average, Flow(), x, noise, jnp.full(len(x), 0.9), jnp.full(len(x), 0.35))])
def test_the_gradient_vanishes_at_the_exact_flow_and_ignores_the_target(loss):
    """The mean over all pairs of data and noise, by quadrature, of d loss / d factor of the average velocity."""
    with jax.enable_x64(True):
        x, noise, weights = pairs(DEVIATION)
        family = lambda factor: lambda z, r, t: factor * _average(Flow())(z, r, t)
        slope = jax.jit(jax.grad(lambda factor: jnp.sum(weights * loss(family(factor), x, noise))))
        assert abs(float(slope(1.0))) < 1e-10
        assert float(slope(1.3)) > 1e-3 and float(slope(0.7)) < -1e-3


@pytest.mark.parametrize('steps', [1, 3])
def test_strides_of_any_length_end_where_the_flow_does(steps):
    with jax.enable_x64(True):
        z = jnp.asarray(RNG.normal(size=(4, 1)))
        end = jax.jit(lambda z: stride_along(_average(Flow()), z, jnp.linspace(1.0, 0.0, steps + 1)))(z)
        np.testing.assert_allclose(end, DEVIATION * z, atol=1e-12)


def test_adaptive_weights_of_errors():
    squared = jnp.asarray([0.01, 4.0])
    np.testing.assert_allclose(adaptive(squared, 0.0), squared, rtol=1e-6)
    slope = jax.grad(lambda x: adaptive(x).sum())(squared)
    np.testing.assert_allclose(slope, 1 / (squared + 1e-3), rtol=1e-6)


def _consistency(path, smallest):
    """The exact consistency function of normal data, down to a noise level sigma / alpha."""
    size = lambda ratio: jnp.sqrt(DEVIATION**2 + ratio**2)
    def function(z, t):
        ratio = (path.sigma(t) / path.alpha(t))[:, None]
        return z / path.alpha(t)[:, None] * size(smallest) / size(ratio)
    return function


def test_consistency_training_is_biased_by_the_distance_of_its_levels():
    """In the linear family the minimiser of (2) over all levels is a product of ratios in closed form: our loss has no
    slope there, and its distance to the exact function halves when the levels double."""
    with jax.enable_x64(True):
        path, (x, noise, weights), gaps = Exploding(80.0), pairs(DEVIATION), []
        for steps in (64, 128):
            sigma = np.asarray(path.sigma(jnp.asarray(consistency_levels(path, steps, 0.01, 80.0), jnp.float64)))
            ratios = (DEVIATION**2 + sigma[:-1] * sigma[1:]) / (DEVIATION**2 + sigma[1:] ** 2)
            exact = np.sqrt((DEVIATION**2 + sigma[0] ** 2) / (DEVIATION**2 + sigma[-1] ** 2))
            gaps.append(np.log(np.prod(ratios) / exact))
        assert gaps[0] / gaps[1] == pytest.approx(2.0, abs=0.1)
        t, s = (jnp.full(len(x), float((sigma[i] / 80) ** (1 / 7))) for i in (60, 59))
        square = lambda a, b: jnp.sum((a - b) ** 2, axis=1)
        family = lambda factor: lambda z, time: jnp.where((time > s)[:, None], factor, 1.0) * z
        slope = jax.jit(jax.grad(lambda factor: jnp.sum(weights * consistency_loss(
            family(factor), path, x, noise, t, s, square))))
        assert abs(float(slope(ratios[59]))) < 1e-9 * float(slope(ratios[59] + 1.0))


@pytest.mark.parametrize('path', [Exploding(80.0), Flow(), PreservingLinear()])
def test_a_bounded_network_is_the_identity_at_the_lowest_level(path):
    with jax.enable_x64(True):
        smallest = 0.01
        levels = jnp.asarray(consistency_levels(path, 4, smallest, 5.0), jnp.float64)
        z = jnp.asarray(RNG.normal(size=(5, 2)))
        ratio = path.sigma(levels) / path.alpha(levels)
        np.testing.assert_allclose(ratio ** (1 / 7), np.linspace(smallest ** (1 / 7), 5 ** (1 / 7), 5), rtol=1e-3)
        found = jax.jit(bounded(lambda z, t: 100.0 + z, path, DEVIATION, float(ratio[0])))(z, levels)
        np.testing.assert_allclose(found[0], z[0] / path.alpha(levels[0]), rtol=1e-10)
        assert (np.abs(found[1:] - z[1:]) > 0.1).all()


def test_consistency_samples_keep_the_law_and_belong_to_their_keys():
    path, draws, smallest = Exploding(80.0), 4000, 1e-3
    keys = sample_keys(jax.random.key(0), jnp.arange(draws))
    z = 80.0 * jax.random.normal(jax.random.key(1), (draws, 1))
    grid = (jnp.asarray([80.0, 2.0, 0.5]) / 80.0) ** (1 / 7)
    run = jax.jit(lambda z, keys: sample_by_consistency(_consistency(path, smallest), path, z, grid, keys))
    samples = np.asarray(run(z, keys))[:, 0]
    assert samples.std() == pytest.approx(DEVIATION, rel=0.04) and abs(samples.mean()) < 0.04
    np.testing.assert_array_equal(run(z[:9], keys[:9])[:, 0], samples[:9])


def test_distances():
    a, b = jnp.asarray([[3.0, 0.0], [0.0, 0.0]]), jnp.asarray([[0.0, 4.0], [0.0, 0.0]])
    c = 0.1 * np.sqrt(2)
    np.testing.assert_allclose(pseudo_huber(a, b, 0.1), [np.sqrt(25 + c**2) - c, 0.0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(('total', 'ends', 'steps', 'wanted'), [
    (400_000, (10, 1280), [0, 49_999, 50_000, 150_000, 349_999, 350_000, 400_000, 10**9],
     [10, 10, 20, 80, 640, 1280, 1280, 1280]),
    (1000, (2, 11), [0, 300, 301, 602, 902, 903, 999], [2, 2, 4, 8, 8, 11, 11]),
    (3, (10, 1280), [0, 1, 2, 3], [10, 20, 40, 80])])
def test_levels_double_as_the_paper_says(total, ends, steps, wanted):
    """Equation (3) by hand: K' is 50,000 for the paper's 10 to 1280 in 400,000; 301 = floor(1000 / (log2 5 + 1))."""
    count = jax.jit(jax.vmap(doubled(total, *ends)))(jnp.asarray(steps))
    assert count.dtype == jnp.int32 and count.tolist() == wanted


@pytest.mark.parametrize('path', [Flow(), PreservingLinear(), Exploding(80.0)])
def test_places_are_those_of_levels(path):
    with jax.enable_x64(True):
        place = jnp.linspace(0.0, 0.9, 7)
        levels = level_at(path, place, 0.01, 60.0)
        ratio = path.sigma(levels) / path.alpha(levels)
        np.testing.assert_allclose(ratio, (0.01 ** (1 / 7) + place * (60 ** (1 / 7) - 0.01 ** (1 / 7))) ** 7, rtol=1e-9)
        np.testing.assert_allclose(place_of(path, levels, 0.01, 60.0), place, atol=1e-9)


def test_self_conditioning_trains_on_its_own_estimate():
    z, t = jnp.ones((2000, 1, 1)), jnp.float32(0.5)
    network = lambda z, t, estimate: 2.0 * z + 10.0 * estimate
    answers = np.asarray(jax.jit(lambda key: self_conditioned(key, network, z, t, 0.25))(jax.random.key(0))).ravel()
    assert set(np.unique(answers)) == {2.0, 22.0} and abs((answers == 22.0).mean() - 0.25) < 0.04
    slope = jax.grad(lambda w: self_conditioned(jax.random.key(0), lambda z, t, e: w * (z + e), z, t, 1.0).mean())(3.0)
    assert slope == pytest.approx(1.0 + 3.0), 'd/dw of w (1 + the estimate), which is 3 and held fixed'


def test_a_self_conditioned_solver_hands_its_estimate_on_and_asks_no_more_often():
    path, grid, z = Flow(), jnp.asarray([0.9, 0.6, 0.3, 0.0]), jnp.ones((1, 1, 1))
    keys = sample_keys(jax.random.key(0), jnp.arange(1))
    network = lambda z, t, estimate: 0.5 * z + 0.25 * estimate
    passed = jax.jit(lambda z: solve(SelfConditioned(DDIM()), network, path, z, grid, keys, True))(z)
    by_hand, estimate = 1.0, 0.0
    for t, s in zip([0.9, 0.6, 0.3], [0.6, 0.3, 0.0]):
        estimate = 0.5 * by_hand + 0.25 * estimate
        by_hand = (1 - s) * estimate + s * (by_hand - (1 - t) * estimate) / t
    assert float(passed[-1, 0, 0, 0]) == pytest.approx(by_hand, rel=1e-5)
    solver, network = DPMSolverPlusPlus(2), lambda z, t, estimate=None: jnp.tanh(z)
    compiled = [jax.jit(lambda z, kind=kind: solve(kind, network, path, z, grid, keys)).lower(z).compile()
                for kind in (SelfConditioned(solver), solver)]
    np.testing.assert_allclose(compiled[0](z), compiled[1](z), rtol=1e-6)
    asked = [program.as_text().count(' tanh(') for program in compiled]
    assert asked[0] == asked[1] == 1, asked
