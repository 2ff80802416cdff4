"""The processes of DiT and SiT: losses against the formulas of DDPM in float64, grids, and what a network is told."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.diffusion.gaussian.published import DenoisingDiffusion, FlowMatching
from vqdit.errors import UserError

SHAPE = (50, 2, 2, 1)


@functools.cache
def _latents():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def _loss(process, slope, share=None):
    """The loss of a network that answers `slope` times what it is given, with all that it was given; float64."""
    asked = {}

    def network(z, told):
        asked.update(z=z, told=told)
        out = slope * z
        return out if share is None else jnp.concatenate([out, jnp.full_like(z, share)], axis=-1)

    @jax.jit
    def run(latents):
        value, parts = process.loss(jax.random.key(1), network, latents)
        return value, parts, dict(asked)

    value, parts, given = run(jnp.asarray(_latents()))
    return float(value), {name: float(part) for name, part in parts.items()}, {
        name: np.asarray(array, np.float64) for name, array in given.items()}


def test_ddpm_weighs_the_noise_evenly_and_trains_the_variance_by_the_bound():
    slope, share, betas = 0.9, 0.3, np.asarray(DenoisingDiffusion().path.betas)
    bars = np.cumprod(1 - betas)
    before = np.append(1.0, bars[:-1])
    lower = betas * (1 - before) / (1 - bars)
    lower[0] = lower[1]
    value, parts, given = _loss(DenoisingDiffusion(), slope, share)
    steps = given['told'].round().astype(int)
    np.testing.assert_allclose(given['told'], steps, atol=1e-3)
    assert steps.min() >= 0 and steps.max() <= 999 and len(set(steps // 20)) == len(steps), 'one in every stratum'

    bar, early, beta = (row[steps][:, None, None, None] for row in (bars, before, betas))
    x, z = _latents().astype(np.float64), given['z']
    noise = (z - np.sqrt(bar) * x) / np.sqrt(1 - bar)
    assert abs(noise.mean()) < 0.3 and noise.std() == pytest.approx(1, abs=0.2)
    assert parts['noise_error'] == pytest.approx(np.mean((noise - slope * z) ** 2), rel=1e-3)

    guess = (z - np.sqrt(1 - bar) * slope * z) / np.sqrt(bar)
    true_variance = beta * (1 - early) / (1 - bar)
    mean_of = lambda clean: (np.sqrt(early) * beta * clean + np.sqrt(1 - beta) * (1 - early) * z) / (1 - bar)
    fraction = (share + 1) / 2
    log_variance = fraction * np.log(beta) + (1 - fraction) * np.log(lower[steps][:, None, None, None])
    with np.errstate(divide='ignore', invalid='ignore'):
        gap = log_variance - np.log(true_variance)
        divergence = 0.5 * (gap + np.exp(-gap) - 1 + (mean_of(x) - mean_of(guess)) ** 2 * np.exp(-log_variance))
    density = 0.5 * (np.log(2 * np.pi) + log_variance + (x - guess) ** 2 * np.exp(-log_variance))
    first = steps[:, None, None, None] == 0
    bits = np.mean(np.where(first, density, divergence)) / np.log(2)
    assert parts['variance_bits'] == pytest.approx(bits, rel=2e-3)
    assert value == pytest.approx(parts['noise_error'] + parts['variance_bits'])


def test_the_bound_teaches_the_variance_alone():
    def loss(answer):
        network = lambda z, told: jnp.broadcast_to(answer, (*z.shape[:-1], 2))
        return DenoisingDiffusion().loss(jax.random.key(1), network, jnp.asarray(_latents()))[1]
    slopes = jax.jit(jax.jacrev(loss))(jnp.asarray([0.1, 0.2]))
    assert slopes['variance_bits'][0] == 0 and slopes['variance_bits'][1] != 0
    assert slopes['noise_error'][0] != 0 and slopes['noise_error'][1] == 0


def test_sit_is_trained_on_the_velocity_towards_the_data():
    for share in (None, 7.0):
        value, parts, given = _loss(FlowMatching(), 0.5, share)
        amount, x = given['told'][:, None, None, None], _latents().astype(np.float64)
        noise = (given['z'] - amount * x) / (1 - amount)
        assert noise.std() == pytest.approx(1, abs=0.2) and amount.min() >= 0 and amount.max() < 1
        wanted = np.mean((0.5 * given['z'] - (x - noise)) ** 2)
        assert value == pytest.approx(wanted, rel=1e-3) and parts == {'velocity_error': value}


def test_grids():
    # round(999, 749.25, 499.5, 249.75, 0), to even
    np.testing.assert_allclose(DenoisingDiffusion().grid(5) * 1000, [1000, 750, 501, 251, 1, 0], rtol=1e-6)
    assert DenoisingDiffusion().grid(1).tolist() == [1.0, 0.0]
    np.testing.assert_allclose(DenoisingDiffusion().told(DenoisingDiffusion().grid(1000)[:-1]), np.arange(1000)[::-1],
                               atol=1e-4)
    np.testing.assert_allclose(FlowMatching().told(FlowMatching().grid(4)), [0, 0.25, 0.5, 0.75, 1], atol=1e-7)
    for process, steps in ((DenoisingDiffusion(), 1001), (DenoisingDiffusion(), 0), (FlowMatching(), 0)):
        with pytest.raises(UserError, match=str(steps)):
            process.grid(steps)
