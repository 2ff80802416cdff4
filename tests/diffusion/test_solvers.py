"""Solvers on a Gaussian mixture whose flow is known: orders, identities and laws."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import mixture
import numpy as np
import pytest
from scipy import stats

from vqdit.diffusion.gaussian import Exploding, Flow, PreservingLinear, Trigonometric
from vqdit.diffusion.gaussian.paths import log_snr
from vqdit.diffusion.samplers import (
    DDIM,
    Churn,
    DPMSolverPlusPlus,
    DPMSolverPlusPlusSDE,
    Euler,
    EulerMaruyama,
    Heun,
    RungeKutta4,
    UniPC,
    grids,
    sample_keys,
    solve,
)
from vqdit.errors import UserError

START, STOP = 0.95, 0.05


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(solver, path, grid, z, keys):
    return solve(solver, mixture.clean_mean(path), path, z, grid, keys)


def _solve(solver, path, grid, z, key=None):
    return np.asarray(_compiled(solver, path, jnp.asarray(grid), jnp.asarray(z), _keys(len(z), key)))


def _keys(count, key=None):
    return sample_keys(jax.random.key(0) if key is None else key, jnp.arange(count))


@pytest.fixture(scope='module')
def truth():
    """Where the flow of `Trigonometric` takes some points."""
    path, z = Trigonometric(), np.linspace(-2.0, 2.0, 9)
    with jax.enable_x64(True):
        moved = mixture.transported(path, z, START, STOP)
    return path, z.reshape(9, 1, 1), moved.reshape(9, 1, 1)


@pytest.mark.parametrize(('solver', 'order', 'steps'), [
    (Euler(), 1, 128), (DDIM(), 1, 128), (Heun(), 2, 64), (DPMSolverPlusPlus(2), 2, 128),
    (DPMSolverPlusPlus(3), 2, 128), (UniPC(1), 2, 128), (UniPC(2), 3, 128), (RungeKutta4(), 4, 128)])
def test_orders(truth, solver, order, steps):
    with jax.enable_x64(True):
        path, z, exact = truth
        errors = [np.abs(_solve(solver, path, np.linspace(START, STOP, n + 1), z) - exact).max()
                  for n in (steps, 2 * steps)]
        assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(('solver', 'degree'), [(DPMSolverPlusPlus(1), 0), (DPMSolverPlusPlus(3), 2)])
def test_a_step_is_exact_for_clean_predictions_that_are_polynomials(solver, degree):
    """Against quadrature of the integral in lambda. Half of phi3, as in other codes, would miss by a tenth."""
    with jax.enable_x64(True):
        path, grid = Trigonometric(), np.array([0.9, 0.75, 0.65, 0.5, 0.45])
        level = lambda t: -jnp.log(jnp.tan(0.5 * jnp.pi * t))
        polynomial = lambda x: 1.0 + (0.5 * x if degree > 0 else 0.0) + (0.3 * x**2 if degree > 1 else 0.0)
        model = lambda z, t: jnp.full_like(z, polynomial(level(t)))
        run = jax.jit(lambda z: solve(solver, model, path, z, jnp.asarray(grid), _keys(1), True))
        passed = np.asarray(run(jnp.ones((1, 1, 1))))[:, 0, 0, 0]
        t, s = grid[3:]
        sigma, alpha = np.sin(0.5 * np.pi * grid), np.cos(0.5 * np.pi * grid)
        nodes, weights = np.polynomial.legendre.leggauss(20)
        start, stop = float(level(t)), float(level(s))
        levels = 0.5 * (stop - start) * (nodes + 1) + start
        integral = 0.5 * (stop - start) * (weights * np.exp(levels - stop) * np.asarray(polynomial(levels))).sum()
        assert passed[4] == pytest.approx(sigma[4] / sigma[3] * passed[3] + alpha[4] * integral, abs=1e-10)


def test_what_is_one_and_the_same():
    """On the straight line DDIM is Euler; order 1 of DPM-Solver++ is DDIM on any path; no churn is none."""
    with jax.enable_x64(True):
        z, grid = np.linspace(-2, 2, 9).reshape(9, 1, 1), np.array([1.0, 0.7, 0.65, 0.2, 0.0])
        np.testing.assert_allclose(_solve(DDIM(), Flow(), grid, z), _solve(Euler(), Flow(), grid, z), atol=1e-12)
        for path in (Flow(), PreservingLinear()):
            ddim = _solve(DDIM(), path, grid, z)
            np.testing.assert_allclose(_solve(DPMSolverPlusPlus(1), path, grid, z), ddim, atol=1e-12)
        np.testing.assert_array_equal(_solve(Churn(DDIM(), 0.0), path, grid, z), ddim)
        still = EulerMaruyama(lambda path, t: jnp.zeros_like(t))
        np.testing.assert_allclose(_solve(still, path, grid, z), _solve(Euler(), path, grid, z), atol=1e-12)


@pytest.mark.parametrize('solver', [Euler(), Heun(), RungeKutta4(), UniPC(2), DPMSolverPlusPlus(3), DDIM(1.0),
                                    DPMSolverPlusPlusSDE(), EulerMaruyama()])
def test_a_step_to_zero_gives_the_clean_vectors(solver):
    """On every path: Euler's method would leave half of the noise where variances are preserved."""
    with jax.enable_x64(True):
        z, path, t = np.linspace(-2, 2, 9).reshape(9, 1, 1), PreservingLinear(), jnp.asarray(0.6)
        assert np.isfinite(_solve(solver, path, np.array([1.0, 0.7, 0.65, 0.2, 0.0]), z)).all()
        one_step = _solve(solver, path, np.array([0.6, 0.0]), z)
        np.testing.assert_allclose(one_step, mixture.clean_mean(path)(jnp.asarray(z), t), atol=1e-12)


@pytest.mark.parametrize('solver', [DDIM(1.0), DPMSolverPlusPlusSDE(), EulerMaruyama(),
                                    EulerMaruyama(lambda path, t: 3.0 * t), Churn(Heun(), 0.2), Heun()])
def test_random_solvers_keep_the_marginals(solver):
    path, draws = Flow(), 4000
    z = jax.random.normal(jax.random.key(1), (draws, 1, 1))
    samples = _solve(solver, path, grids.uniform(60, 1.0, 0.02) if not isinstance(solver, Churn) else
                     np.linspace(0.99, 0.02, 60, dtype=np.float32), z, jax.random.key(2))[:, 0, 0]
    cdf = lambda z: sum(w * stats.norm.cdf(z, 0.98 * m, np.hypot(0.98 * d, 0.02))
                        for w, m, d in zip(mixture.WEIGHTS, mixture.MEANS, mixture.DEVIATIONS))
    assert stats.kstest(samples, cdf).pvalue > 1e-3


def test_a_trajectory_starts_at_the_noise_and_ends_at_the_sample():
    z = jnp.ones((2, 1, 1))
    run = jax.jit(lambda z, keys: solve(Euler(), mixture.clean_mean(Flow()), Flow(), z, grids.uniform(4), keys, True))
    passed = run(z, _keys(2))
    assert passed.shape == (5, 2, 1, 1)
    np.testing.assert_array_equal(passed[0], z)
    np.testing.assert_allclose(passed[-1], _solve(Euler(), Flow(), grids.uniform(4), z), atol=1e-6)


def test_grids():
    for grid in (grids.uniform(8), grids.quadratic(8), grids.arccos(8), grids.shifted(grids.uniform(8), 3.0),
                 grids.karras(8, Exploding()), grids.equal_log_snr(8, Trigonometric())):
        assert grid.shape == (9,) and grid[-1] == 0 and grid[0] <= 1 and (np.diff(grid) < 0).all()
    ratios = np.asarray(Exploding().sigma(grids.karras(8, Exploding())))[:8]
    np.testing.assert_allclose(ratios ** (1 / 7), np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 8), rtol=1e-4)
    levels = log_snr(Trigonometric(), grids.equal_log_snr(8, Trigonometric())[:8])
    np.testing.assert_allclose(np.diff(levels), np.diff(levels).mean(), rtol=1e-3)


def test_a_sample_belongs_to_its_key_in_any_batch():
    z, grid = jnp.ones((4, 1, 1)), np.linspace(0.9, 0.0, 4, dtype=np.float32)
    run = jax.jit(lambda z, keys: solve(DDIM(1.0), mixture.clean_mean(Flow()), Flow(), z, grid, keys))
    whole = run(z, _keys(4))
    assert len(np.unique(whole)) == 4
    np.testing.assert_array_equal(run(z[2:], _keys(4)[2:]), whole[2:])


def test_churn_lifts_between_its_bounds():
    """A solver that does nothing shows the noise that is added: that of the marginals, times the inflation."""
    @dataclass(frozen=True)
    class Still:
        def start(self, z):
            return None

        def step(self, keys, model, path, z, memory, t, s):
            return jnp.broadcast_to(t, z.shape), memory

    path, z = Exploding(10.0, 1.0), jnp.zeros((2, 1, 1))
    reach = lambda churn, t: float(_solve(churn, path, jnp.array([t, 0.5 * t]), z)[0, 0, 0])
    assert reach(Churn(Still(), 0.2), 0.5) == pytest.approx(0.6, rel=1e-4)
    assert reach(Churn(Still(), 0.2), 0.9) == 1.0, 'no further than the prior'
    for bounds in ((0.6, 1.0), (0.0, 0.4)):
        assert reach(Churn(Still(), 0.2, *bounds), 0.5) == 0.5
    same = lambda z, t: z
    added = [np.asarray(solve(Churn(Euler(), 0.2, inflation=by), same, path, z, jnp.array([0.5, 0.49]), _keys(2)))
             for by in (1.0, 2.0)]
    np.testing.assert_allclose(added[1], 2 * added[0], rtol=1e-6)


@pytest.mark.parametrize('make', [lambda: grids.uniform(0), lambda: DPMSolverPlusPlus(4), lambda: UniPC(0),
                                  lambda: DDIM(1.5)])
def test_bad_settings_are_refused(make):
    with pytest.raises(UserError):
        make()
