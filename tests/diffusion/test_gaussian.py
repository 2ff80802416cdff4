"""Gaussian paths, predictions and posteriors in float64 against linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vqdit.diffusion.gaussian import (
    PREDICTIONS,
    Betas,
    Exploding,
    Flow,
    Gaussian,
    PreservingLinear,
    Trigonometric,
    clean_and_noise,
    codes_to_clean,
    learned_range,
    length_shift,
    posterior,
    predicted,
    shift_time,
    time_at,
    variational_term,
)
from vqdit.diffusion.gaussian import weightings as w
from vqdit.diffusion.gaussian.paths import log_snr, log_snr_slope
from vqdit.diffusion.gaussian.predictions import preconditioned
from vqdit.diffusion.gaussian.times import TIMES, measured_losses
from vqdit.errors import UserError

EACH_PATH = [Flow(), Trigonometric(), PreservingLinear(), Exploding(10.0, 3.0), Betas.linear(50, 1e-3, 0.2)]


def _draws(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize('path', EACH_PATH)
def test_predictions_are_one_another(path):
    """All conversions there and back, and the path starts at the data."""
    with jax.enable_x64(True):
        t = jnp.asarray([0.05, 0.3, 0.77, 0.99])

        @jax.jit
        def everything(x, noise, t):
            z = path.alpha(t)[:, None] * x + path.sigma(t)[:, None] * noise
            outs = {name: predicted(kind, x, noise, path, t) for name, kind in PREDICTIONS.items()}
            backs = {name: clean_and_noise(PREDICTIONS[name], out, z, path, t) for name, out in outs.items()}
            ends = jnp.asarray([0.0, 1.0])
            return outs, backs, (path.alpha(ends), path.sigma(ends)), (log_snr(path, t), log_snr_slope(path, t)), (
                jax.vmap(jax.grad(lambda t: log_snr(path, t)))(t))

        x, noise = _draws(4, 3), _draws(4, 3, seed=1)
        outs, backs, (alpha, sigma), (level, slope), derivative = everything(x, noise, t)
        for name in PREDICTIONS:
            np.testing.assert_allclose(backs[name][0], x, atol=1e-11, err_msg=name)
            np.testing.assert_allclose(backs[name][1], noise, atol=1e-11, err_msg=name)
        assert float(alpha[0]) == 1 and float(sigma[0]) == 0 and (np.diff(level) < 0).all()
        np.testing.assert_allclose(slope, derivative, rtol=1e-9)
        np.testing.assert_allclose(outs['score'], -noise / path.sigma(t)[:, None], rtol=1e-12)


def test_predictions_at_the_ends():
    """Where an answer says nothing, clean data is itself and pure noise has the mean of the data."""
    z, out, ends = jnp.ones((2, 1)), jnp.full((2, 1), 5.0), jnp.array([0.0, 1.0])
    clean, _ = clean_and_noise(PREDICTIONS['noise'], out, z, Flow(), ends)
    np.testing.assert_array_equal(clean, [[1.0], [0.0]])
    clean, noise = clean_and_noise(PREDICTIONS['velocity'], out, z, Flow(), ends)
    np.testing.assert_array_equal(clean, [[1.0], [-4.0]])
    np.testing.assert_array_equal(noise, [[6.0], [1.0]])


@pytest.mark.parametrize('path', EACH_PATH)
def test_given_tokens_stay_as_they_are_whatever_is_predicted(path):
    """At a noise level of 0 x = z, also where the velocity is infinite, and the gradient is finite."""
    z, t = jnp.full((2, 1), 3.0), jnp.zeros(2)

    @jax.jit
    def everything(out):
        return {name: jax.value_and_grad(lambda out, kind=kind: clean_and_noise(kind, out, z, path, t)[0].sum())(out)
                for name, kind in PREDICTIONS.items()}

    for name, (clean, gradient) in everything(jnp.ones((2, 1))).items():
        np.testing.assert_allclose(clean, 6.0, rtol=1e-6, err_msg=name)
        assert np.isfinite(gradient).all(), name


@pytest.mark.parametrize('path', EACH_PATH)
def test_the_level_of_a_signal_to_noise_ratio_is_found(path):
    with jax.enable_x64(True):
        t = jnp.asarray([0.01, 0.3, 0.99])
        found = jax.jit(lambda t: time_at(path, log_snr(path, t)))(t)
        np.testing.assert_allclose(found, t, rtol=1e-6)
        assert float(time_at(path, jnp.asarray(np.inf))) == 0 and float(time_at(path, jnp.asarray(-1e9))) == 1


@pytest.mark.parametrize('path', EACH_PATH)
def test_posterior_is_conditioning_of_a_normal(path):
    """Mean and variance from the joint covariance of (z_s, z_t), a chain whose steps add independent noise."""
    with jax.enable_x64(True):
        run = jax.jit(lambda z, x, t, s: (*posterior(path, z, x, t, s), path.alpha(t), path.alpha(s), path.sigma(t),
                                          path.sigma(s)))
        for t, s in ((0.8, 0.3), (0.5, 0.48), (0.999, 0.01)):
            z, x = _draws(1, 1, 2), _draws(1, 1, 2, seed=2)
            mean, variance, a_t, a_s, b_t, b_s = map(np.asarray, run(z, x, jnp.full((1, 1), t), jnp.full((1, 1), s)))
            covariance = (a_t / a_s) * b_s**2
            gain = covariance / b_t**2
            np.testing.assert_allclose(mean[0], a_s * x[0] + gain * (z[0] - a_t * x[0]), atol=1e-12)
            np.testing.assert_allclose(variance[0], b_s**2 - gain * covariance, atol=1e-12)


def test_the_bound_in_steps_is_the_likelihood_of_linear_gaussian_data():
    """Data N(0, 1) in one dimension with its exact denoiser: the gap of T steps, T doubling, halves."""
    with jax.enable_x64(True):
        gaps = []
        for steps in (64, 128):
            grid = np.geomspace(1e-3, 1, steps + 1)
            alpha, sigma = np.cos(0.5 * np.pi * grid), np.sin(0.5 * np.pi * grid)
            # E |x - E[x | z]|^2 = sigma^2 on this path; the terms are (snr(s) - snr(t)) / 2 times that.
            snr = (alpha / sigma) ** 2
            gaps.append(0.5 * ((snr[:-1] - snr[1:]) * sigma[1:] ** 2).sum())
        exact = 0.5 * (np.log(np.sin(0.5 * np.pi)) - np.log(np.sin(0.5e-3 * np.pi))) * 2
        assert 1.7 < (gaps[0] - exact) / (gaps[1] - exact) < 2.3
        # The continuous weight integrates to the same: E |noise - guess|^2 = alpha^2.
        nodes, weights = np.polynomial.legendre.leggauss(100)
        u = np.exp(np.log(1e-3) * 0.5 * (1 - nodes))
        found = w.likelihood(Trigonometric(), jnp.asarray(u)) * np.cos(0.5 * np.pi * u) ** 2 * u
        assert float((found * weights).sum() * 0.5 * -np.log(1e-3)) == pytest.approx(exact, rel=1e-6)


def test_corrupt_has_the_moments_and_loss_the_weight():
    process, shape = Gaussian(), (20_000, 2, 1)
    clock = jnp.broadcast_to(jnp.array([[0.25, 1.0]]), shape[:2])
    z, noise = jax.jit(process.corrupt)(jax.random.key(0), jnp.full(shape, 2.0), clock)
    for place, (mean, deviation) in enumerate([(1.5, 0.25), (0.0, 1.0)]):
        assert stats.kstest(np.asarray(z[:, place, 0], np.float64), stats.norm(mean, deviation).cdf).pvalue > 1e-3
    out = predicted(process.prediction, jnp.full(shape, 2.0), noise, process.path, clock)
    clean = jnp.full(shape, 2.0)
    assert float(jax.jit(process.loss)(out, clean, noise, clock).max()) < 1e-6
    worse = jax.jit(process.loss)(out + 1.0, clean, noise, clock)
    np.testing.assert_allclose(worse, 1.0, rtol=1e-3)  # of the velocity, also for pure noise


@pytest.mark.parametrize('path', EACH_PATH)
def test_the_loss_is_the_same_for_all_predictions_and_finite_everywhere(path):
    """Answers that stand for one and the same guess of x cost the same, by the definition in the noise."""
    with jax.enable_x64(True):
        t = jnp.asarray([[0.2, 0.5, 0.9]])
        x, noise, guess = _draws(1, 3, 2), _draws(1, 3, 2, seed=1), _draws(1, 3, 2, seed=2)

        @jax.jit
        def losses():
            alpha, sigma = path.alpha(t)[..., None], path.sigma(t)[..., None]
            other = (alpha * x + sigma * noise - alpha * guess) / sigma
            truth = w.min_snr()(path, t) * jnp.sum((noise - other) ** 2, axis=-1)
            found = {name: Gaussian(path, kind, w.min_snr()).loss(predicted(kind, guess, other, path, t), x, noise, t)
                     for name, kind in PREDICTIONS.items()}
            return truth, found

        truth, found = losses()
        for name, values in found.items():
            np.testing.assert_allclose(values, truth, rtol=1e-9, err_msg=name)

    ends, ones = jnp.asarray([[0.0, 1e-7, 1.0]]), jnp.ones((1, 3, 1))
    for kind, weighting in (('velocity', w.likelihood), ('clean', w.velocity)):
        process = Gaussian(path, PREDICTIONS[kind], weighting)
        loss = lambda out, process=process: process.loss(out, ones, ones, ends).sum()
        assert np.isfinite(jax.jit(jax.grad(loss))(0.0 * ones)).all()


def test_preconditioning_is_that_of_edm():
    """skip, size and weight as EDM's table 1 has them, for alpha = 1."""
    with jax.enable_x64(True):
        sigma, deviation = np.array([0.1, 0.7, 5.0]), 0.5
        path, t, kind = Exploding(10.0, 1.0), jnp.asarray(sigma / 10.0), preconditioned(deviation)
        z, out = _draws(3, 1), _draws(3, 1, seed=1)
        skip, size = deviation**2 / (sigma**2 + deviation**2), sigma * deviation / np.hypot(sigma, deviation)
        clean, _ = clean_and_noise(kind, out, z, path, t)
        np.testing.assert_allclose(clean[:, 0], skip * z[:, 0] + size * out[:, 0], rtol=1e-12)
        weight = w.preconditioned(deviation)(path, t) / sigma**2
        np.testing.assert_allclose(weight, (sigma**2 + deviation**2) / (sigma * deviation) ** 2, rtol=1e-12)


def test_weightings():
    with jax.enable_x64(True):
        t = jnp.asarray([0.1, 0.5, 0.9])
        snr = ((1 - t) / t) ** 2
        np.testing.assert_allclose(w.min_snr(5.0)(Flow(), t), np.minimum(snr, 5) / snr, rtol=1e-12)
        np.testing.assert_allclose(w.p2(0.5, 1.0)(Flow(), t), 1 / np.sqrt(1 + snr), rtol=1e-12)
        np.testing.assert_allclose(w.likelihood(Flow(), t), 1 / (t * (1 - t)), rtol=1e-12)
        np.testing.assert_allclose(w.sigmoid(2.0)(Flow(), t), 1 / (t * (1 - t)) / (1 + snr * np.exp(-2)), rtol=1e-12)
        np.testing.assert_allclose(w.velocity(Flow(), t), 1 / (1 - t) ** 2, rtol=1e-12)


def test_times_have_their_laws():
    """Every map is the quantile function of its law: at the middle of each of 4000 strata, the law is exact."""
    u = jnp.asarray((np.arange(4000) + 0.5) / 4000, jnp.float32)
    maps = {'uniform': TIMES['uniform'](), 'shifted': TIMES['shifted'](3.0),
            'logit_normal': TIMES['logit_normal'](0.5, 2.0), 'log_normal': TIMES['log_normal'](-1.2, 0.6)}
    drawn = {name: np.asarray(jax.jit(lambda u, times=times: times(PreservingLinear(), u))(u), np.float64)
             for name, times in maps.items()}
    assert all((np.diff(t) >= 0).all() for t in drawn.values())
    ratio = lambda t: np.sqrt(np.expm1(0.5 * t**2 * 19.9 + t * 0.1))
    laws = {'uniform': (lambda t: t, 'uniform', ()), 'shifted': (lambda t: t / (3 - 2 * t), 'uniform', ()),
            'logit_normal': (lambda t: np.log(t / (1 - t)), 'norm', (0.5, 2.0)),
            'log_normal': (lambda t: np.log(ratio(t)), 'norm', (-1.2, 0.6))}
    for name, (into, law, options) in laws.items():
        assert stats.kstest(into(drawn[name]), getattr(stats, law)(*options).cdf).statistic < 1e-3, name


def test_learned_uncertainty_is_the_logarithm_of_the_mean_error():
    """The gradient vanishes there at every level, and the weighted errors are all of size 1."""
    with jax.enable_x64(True):
        t, errors = jnp.asarray([0.0, 0.25, 0.25, 0.5, 1.0]), jnp.asarray([0.1, 2.0, 4.0, 5.0, 300.0])
        best = jnp.log(jnp.asarray([0.1, 3.0, 5.0, 40.0, 300.0]))  # nothing was met at 0.75
        slope = jax.grad(lambda table: jnp.sum(w.uncertainty(errors, table, t)))(best)
        np.testing.assert_allclose(slope, 0, atol=1e-12)
        between = w.uncertainty(0.0, jnp.asarray([1.0, 3.0]), jnp.asarray([0.0, 0.25, 1.0]))
        np.testing.assert_allclose(between, [1.0, 1.5, 3.0], rtol=1e-12)


def test_a_table_of_times_makes_the_loss_rise_evenly():
    with jax.enable_x64(True):
        losses, u = (0.0, 0.1, 2.0, 2.2), jnp.linspace(0.0, 1.0, 9)
        t = np.asarray(TIMES['table'](losses)(Flow(), u))
        np.testing.assert_allclose(np.interp(t, np.linspace(0, 1, 4), losses), 2.2 * u, atol=1e-12)
    levels = np.random.default_rng(0).random(4000)
    found = measured_losses(levels, np.minimum(levels, 0.5) * 2.0, pieces=8)
    assert (np.diff(found) > 0).all() and found[-1] == pytest.approx(1.0, abs=0.05)
    assert found[4] - found[1] == pytest.approx(0.75, abs=0.1), 'the loss, where it rises'
    with pytest.raises(UserError, match='must rise'):
        TIMES['table']((0.0, 1.0, 1.0))


def test_learned_variances_span_the_two_extremes_and_cost_nothing_when_right():
    with jax.enable_x64(True):
        path, t, s = Trigonometric(), jnp.full((1, 1), 0.6), jnp.full((1, 1), 0.4)
        z, x = _draws(1, 1, 2), _draws(1, 1, 2, seed=3)
        _, variance = posterior(path, z, x, t, s)
        low, high = (learned_range(path, jnp.full((1, 1, 2), side), t, s) for side in (-1.0, 1.0))
        np.testing.assert_allclose(low, np.log(variance) * np.ones(2), rtol=1e-12)
        forward = 1 - (np.cos(0.3 * np.pi) / np.cos(0.2 * np.pi)) ** 2
        np.testing.assert_allclose(high, np.log(forward), rtol=1e-12)
        np.testing.assert_allclose(variational_term(path, z, x, x, low, t, s), 0, atol=1e-12)
        ratio = np.exp(np.asarray(low - high))
        np.testing.assert_allclose(variational_term(path, z, x, x, high, t, s), 0.5 * (ratio - 1 - np.log(ratio)),
                                   rtol=1e-9)


def test_shifts_compose_and_codes_average():
    t = jnp.linspace(0, 1, 5)
    np.testing.assert_allclose(shift_time(shift_time(t, 2.0), 3.0), shift_time(t, 6.0), rtol=1e-6)
    assert length_shift(4096, 1024) == 2.0
    book = jnp.array([[0.0, 0.0], [2.0, 4.0]])
    np.testing.assert_allclose(codes_to_clean(jnp.log(jnp.array([0.25, 0.75])), book), [1.5, 3.0], rtol=1e-6)
    with pytest.raises(UserError, match='between 0 and 1'):
        Betas((0.1, 1.0))
