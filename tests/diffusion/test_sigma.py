"""Our steps beside those of diffusers and k-diffusion in EDM's and in flow's time, through golden/sigma.json."""

import json
from dataclasses import dataclass

import diffusers_golden
import jax
import jax.numpy as jnp
import mixture
import numpy as np
import pytest
import sigma_golden

from vqdit.diffusion.gaussian import Exploding, Flow, clean_and_noise
from vqdit.diffusion.gaussian.predictions import preconditioned
from vqdit.diffusion.guidance import Projected
from vqdit.diffusion.samplers import DPMSolverPlusPlus, Euler, Heun, Momentum, sample_keys, solve


@pytest.fixture(scope='module')
def golden():
    return json.loads(sigma_golden.PATH.read_text())


def _solve(solver, path, grid, scale, model=None):
    with jax.enable_x64(True):
        z = jnp.asarray(diffusers_golden.START).reshape(1, 8, 1) * scale
        run = jax.jit(lambda *rest: solve(solver, model or mixture.clean_mean(path), path, *rest))
        return np.asarray(run(z, jnp.asarray(grid), sample_keys(jax.random.key(0), jnp.arange(1)))).ravel()


@pytest.mark.parametrize(('name', 'solver'), [
    ('k euler', Euler()), ('k heun', Heun()), ('k dpmpp_2m', DPMSolverPlusPlus(2))])
def test_samplers_of_k_diffusion(golden, name, solver):
    sigmas = np.array(golden[name]['sigmas'])
    found = _solve(solver, Exploding(sigmas[0], 1.0), sigmas / sigmas[0], sigma_golden.LARGEST)
    np.testing.assert_allclose(found, golden[name]['sample'], atol=1e-5)


@pytest.mark.parametrize(('name', 'solver'), [('edm euler', Euler()), ('edm dpm 2', DPMSolverPlusPlus(2))])
def test_schedulers_of_edm_read_preconditioned_answers(golden, name, solver):
    """Our network answers what theirs does, and our conversion reads it."""
    sigmas = np.array(golden[name]['sigmas'])
    path, kind = Exploding(sigmas[0], 1.0), preconditioned(sigma_golden.DEVIATION)

    def model(z, t):
        sigma, deviation = path.sigma(t), sigma_golden.DEVIATION
        total = sigma**2 + deviation**2
        answer = (mixture.clean_mean(path)(z, t) - deviation**2 / total * z) * jnp.sqrt(total) / (sigma * deviation)
        return clean_and_noise(kind, answer, z, path, t)[0]

    found = _solve(solver, path, sigmas / sigmas[0], sigmas[0], model)
    np.testing.assert_allclose(found, golden[name]['sample'], atol=1e-5)


def test_the_flow_scheduler_of_order_two(golden):
    grid = np.array(golden['flow heun']['sigmas'])
    grid = np.append(np.unique(grid[grid > 0])[::-1], 0.0)
    np.testing.assert_allclose(_solve(Heun(), Flow(), grid, 1.0), golden['flow heun']['sample'], atol=1e-5)


@dataclass(frozen=True)
class Listed:
    """A solver that returns what its model answers, [B, N, C]."""

    def start(self, z):
        return None

    def step(self, keys, model, path, z, memory, t, s):
        return model(z, t), memory


def test_projected_guidance_with_momentum(golden):
    """Three steps of APG: the guided predictions are those of diffusers; without momentum they are ours alone."""
    apg = golden['apg']
    c, u = (jnp.asarray(apg[name], jnp.float32) for name in 'cu')
    guidance = Projected(apg['weight'], apg['eta'], apg['radius'])
    keys, grid = sample_keys(jax.random.key(0), jnp.arange(2)), jnp.asarray([3.0, 2.0, 1.0, 0.0]) / 3.0
    pair = lambda z, t: tuple(x[jnp.round(3 - 3 * t).astype(jnp.int32)] for x in (c, u))
    run = jax.jit(lambda momentum: solve(Momentum(Listed(), guidance, momentum), pair, Flow(), c[0], grid, keys, True))
    np.testing.assert_allclose(run(apg['momentum'])[1:], np.array(apg['guided']), atol=1e-5)
    alone = [guidance(c[i], u[i], jnp.zeros((2, 1, 1))) for i in range(3)]
    np.testing.assert_allclose(run(0.0)[1:], jnp.stack(alone), atol=1e-6)


def test_momentum_does_not_matter_when_there_is_nothing_to_guide():
    pair = lambda z, t: (0.5 * z, 0.5 * z)
    keys, grid, z = sample_keys(jax.random.key(0), jnp.arange(2)), jnp.asarray([0.9, 0.5, 0.0]), jnp.ones((2, 1, 1))
    guided = solve(Momentum(Euler(), Projected(5.0), -0.7), pair, Flow(), z, grid, keys)
    np.testing.assert_array_equal(guided, solve(Euler(), lambda z, t: 0.5 * z, Flow(), z, grid, keys))


@pytest.mark.peers
def test_the_golden_file_is_what_the_peers_do(golden):
    made = sigma_golden.make()
    assert made.keys() == golden.keys()
    for name, content in golden.items():
        for part in ('sample', 'guided'):
            if isinstance(content, dict) and part in content:
                np.testing.assert_allclose(made[name][part], content[part], atol=1e-6)
