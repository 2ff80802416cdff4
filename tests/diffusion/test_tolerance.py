"""The solver of tolerances on a Gaussian mixture whose flow is known by quantiles."""

import functools
import sys

import jax
import jax.numpy as jnp
import mixture
import numpy as np
import pytest

from vqdit.diffusion.gaussian import Trigonometric
from vqdit.diffusion.samplers import SOLVERS, Adaptive, sample_keys
from vqdit.errors import UserError

pytest.importorskip('diffrax', reason='the solver "adaptive" needs the extra "ode"')
POINTS, PATH = np.linspace(-2.0, 2.0, 5), Trigonometric()


@functools.cache
def _flow(tolerance):
    """`(t, s) -> z [5]` from `POINTS` by one step of the solver, and a list that grows when the model is asked."""
    asked, solver, model = [], Adaptive(tolerance, tolerance), mixture.clean_mean(PATH)
    z, keys = jnp.asarray(POINTS).reshape(5, 1, 1), sample_keys(jax.random.key(0), jnp.arange(5))

    def counted(z, t):
        jax.debug.callback(lambda: asked.append(1))
        return model(z, t)

    run = jax.jit(lambda t, s: solver.step(keys, counted, PATH, z, None, t, s)[0])
    return lambda *times: np.asarray(run(*map(jnp.float64, times)))[:, 0, 0], asked


def test_one_step_follows_the_flow_within_its_tolerances_and_asks_as_often_as_they_need():
    with jax.enable_x64(True):
        exact, errors, counts = mixture.transported(PATH, POINTS, 0.95, 0.05), [], []
        for tolerance in (1e-2, 1e-8):
            flow, asked = _flow(tolerance)
            errors.append(np.abs(flow(0.95, 0.05) - exact).max())
            jax.effects_barrier()
            counts.append(len(asked))
        assert 1e-5 < errors[0] < 0.05 and errors[1] < 1e-7
        assert 6 < counts[0] < 0.5 * counts[1] < 1000


def test_a_step_to_zero_ends_in_the_models_answer():
    """Not in Euler's, which would leave half of the noise where variances are preserved; what is nearer to zero than
    the last level goes there at once."""
    with jax.enable_x64(True):
        flow, _ = _flow(1e-8)
        answer = lambda z, t: mixture.clean_mean(PATH)(jnp.asarray(z).reshape(5, 1, 1), jnp.float64(t))[:, 0, 0]
        np.testing.assert_allclose(flow(0.9, 0.0), answer(flow(0.9, 1e-3), 1e-3), atol=1e-12)
        np.testing.assert_allclose(flow(5e-4, 0.0), answer(POINTS, 5e-4), atol=1e-12)


def test_unsound_tolerances_and_a_missing_package_are_told(monkeypatch):
    for settings, said in (({'relative': 0.0}, 'relative of the solver "adaptive" is 0.0'),
                           ({'absolute': -1.0}, 'absolute of'), ({'last': 0.0}, 'last of')):
        with pytest.raises(UserError, match=said):
            SOLVERS['adaptive'](**settings)
    monkeypatch.setitem(sys.modules, 'diffrax', None)
    with pytest.raises(UserError, match=r'needs the package diffrax; run: pip install "vqdit\[ode\]"'):
        SOLVERS['adaptive']()
