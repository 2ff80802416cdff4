"""Our steps beside those of diffusers, through golden/diffusers.json."""

import json
from dataclasses import dataclass

import diffusers_golden
import jax
import jax.numpy as jnp
import mixture
import numpy as np
import pytest

from vqdit.diffusion.categorical import MaskAndReplace, Uniform
from vqdit.diffusion.gaussian import Betas, Exploding, Flow, posterior
from vqdit.diffusion.samplers import DDIM, DPMSolverPlusPlus, Euler, Heun, UniPC, solve

STEPS = 1000


@pytest.fixture(scope='module')
def golden():
    return json.loads(diffusers_golden.PATH.read_text())


@dataclass(frozen=True)
class PosteriorWithOnes:
    """The step of DDPM with noise 1 in place of random noise, and none in the last."""

    def start(self, z):
        return None

    def step(self, keys, model, path, z, memory, t, s):
        mean, variance = posterior(path, z, model(z, t), t, s)
        return mean + jnp.sqrt(variance), memory


def _solve(solver, path, grid, scale=1.0):
    with jax.enable_x64(True):
        z = jnp.asarray(diffusers_golden.START).reshape(1, 8, 1) * scale
        run = jax.jit(lambda *rest: solve(solver, mixture.clean_mean(path), path, *rest))
        return np.asarray(run(z, jnp.asarray(grid), jax.random.split(jax.random.key(0), 1))).ravel()


@pytest.mark.parametrize(('name', 'solver'), [
    ('ddpm with noise 1', PosteriorWithOnes()), ('ddim', DDIM()), ('dpm 1', DPMSolverPlusPlus(1)),
    ('dpm 2', DPMSolverPlusPlus(2)), ('unipc 1', UniPC(1)), ('unipc 2', UniPC(2))])
def test_preserving_schedulers(golden, name, solver):
    """The step n of theirs is our noise level (n + 1) / 1000, and the end is 0."""
    grid = np.append((np.array(golden[name]['times']) + 1) / STEPS, 0.0)
    np.testing.assert_allclose(_solve(solver, Betas.linear(), grid), golden[name]['sample'], atol=1e-5)


def test_order_three_differs_by_half_of_phi3(golden):
    """Theirs is not exact for a quadratic clean prediction, ours is (test_solvers): small, but no rounding."""
    grid = np.append((np.array(golden['dpm 3']['times']) + 1) / STEPS, 0.0)
    gap = np.abs(_solve(DPMSolverPlusPlus(3), Betas.linear(), grid) - golden['dpm 3']['sample']).max()
    assert 1e-5 < gap < 0.1


@pytest.mark.parametrize(('name', 'solver'), [('euler', Euler()), ('heun', Heun())])
def test_schedulers_in_sigma(golden, name, solver):
    sigmas = np.array(golden[name]['sigmas'])
    sigmas = np.append(np.unique(sigmas[sigmas > 0])[::-1], 0.0)
    found = _solve(solver, Exploding(sigmas[0], 1.0), sigmas / sigmas[0], sigmas[0])
    np.testing.assert_allclose(found, golden[name]['sample'], atol=1e-5)


def test_flow_scheduler(golden):
    np.testing.assert_allclose(_solve(Euler(), Flow(), golden['flow euler']['sigmas']), golden['flow euler']['sample'],
                               atol=1e-5)


@dataclass(frozen=True)
class _Values:
    """A schedule through given values, and 0 behind them."""

    values: tuple[float, ...]

    def alpha(self, t):
        return jnp.interp(t, jnp.linspace(0, 1, len(self.values) + 1), jnp.asarray([*self.values, 0.0]))

    def slope(self, t):
        return -jnp.ones_like(t)


def test_vq_diffusion_posterior(golden):
    """Of a single step back, the only kind that theirs gets right: their index t is our step t + 1."""
    with jax.enable_x64(True):
        found, codes = golden['vq'], golden['vq']['codes']
        # The chance of replacement is a millionth: only in float64 is it what the two others leave.
        kept = np.append(1.0, np.linspace(0.99999, 9e-6, 10))
        masked = np.append(0.0, np.linspace(9e-6, 0.99999, 10))
        process = MaskAndReplace(_Values(tuple(1 - masked)), Uniform(_Values(tuple(kept / (1 - masked)))))
        z, p = jnp.arange(codes + 1), np.array(found['p'])
        for step in (3, 9):
            t, s = (jnp.full(codes + 1, (step + back) / len(kept)) for back in (1.0, 0.0))
            ours = process.reverse(jnp.log(jnp.asarray(p)), z, t, s)
            np.testing.assert_allclose(ours, np.array(found[f'step {step}']), atol=1e-5)


@pytest.mark.peers
def test_the_golden_file_is_what_diffusers_does(golden):
    made = diffusers_golden.make()
    for name in golden:
        if isinstance(golden[name], dict) and 'sample' in golden[name]:
            np.testing.assert_allclose(made[name]['sample'], golden[name]['sample'], atol=1e-6)
    assert made['vq'] == golden['vq']
