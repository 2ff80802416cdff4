"""The likelihood of noised code vectors by the probability flow, beside the exact mixture in float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from scipy.special import logsumexp

from vqdit.diffusion.clock import GENERATED, GIVEN
from vqdit.diffusion.gaussian import PREDICTIONS, Exploding, Flow, Gaussian
from vqdit.diffusion.gaussian.code_space import CodeSpace
from vqdit.diffusion.gaussian.code_vectors import CodeVectors
from vqdit.diffusion.gaussian.paths import time_at
from vqdit.diffusion.samplers.grids import equal_log_snr
from vqdit.diffusion.vector_likelihood import noised_vectors_nats

TABLE = np.array([[[-1.2, 0.1], [0.3, 1.1], [0.9, -1.2]]], np.float32)
RNG = np.random.default_rng(0)


def _denoiser(path):
    """The logits of log p(x_i | z) by enumeration; given tokens stand at noise level 0."""
    states, p = jnp.asarray(toy.STATES), jnp.asarray(toy.joint(), jnp.float32)

    def denoiser(seen, clock):
        alpha, sigma = path.alpha(clock)[..., None], jnp.maximum(path.sigma(clock), 1e-3)[..., None]
        z = seen * jnp.sqrt(alpha**2 + path.sigma(clock)[..., None] ** 2)
        gap = (z[:, :, None] - alpha[:, :, None] * jnp.asarray(TABLE[0])[None, None]) / sigma[:, :, None]
        each = -0.5 * jnp.sum(gap**2, axis=-1)
        of_state = jnp.log(p)[None] + sum(each[:, i][:, states[:, i]] for i in range(toy.LENGTH))
        picks = [jax.nn.logsumexp(jnp.where((states[:, i] == k)[None], of_state, -jnp.inf), axis=1)
                 for i in range(toy.LENGTH) for k in range(toy.CODES)]
        return {'toy': jnp.stack(picks, axis=1).reshape(len(z), toy.LENGTH, toy.CODES)}
    return denoiser


def _truth(alpha, sigma, z, first):
    """-log p(z_1, z_2 | x_0 = first), or of all three tokens where nothing is given, by the mixture of all codes."""
    given = [] if first is None else [0]
    p = np.where(toy.STATES[:, 0] == first, toy.joint(), 0.0) if given else toy.joint()
    with np.errstate(divide='ignore'):
        logs = np.log(p / p.sum())[None]
    for i in range(len(given), toy.LENGTH):
        gap = (z[:, None, i] - alpha * TABLE[0][toy.STATES[:, i]][None]) / sigma
        logs = logs - 0.5 * (gap**2).sum(-1) - np.log(2 * np.pi * sigma**2)
    return -logsumexp(logs, axis=1)


@pytest.mark.parametrize(('path', 'first'), [(Flow(), None), (Exploding(80.0), 1)])
def test_it_is_the_density_of_the_mixture(path, first):
    space = CodeSpace(Gaussian(path, PREDICTIONS['clean']), CodeVectors(toy.LAYOUT, {'toy': TABLE}))
    last, start = (float(time_at(path, jnp.asarray(level))) for level in (-8.7, 3.0))
    grid = jnp.asarray(np.asarray(equal_log_snr(49, path, last, start))[-2::-1])
    codes = np.array([[1, 0, 2], [1, 2, 1], [1, 1, 1], [1, 0, 0]])
    alpha, sigma = float(path.alpha(grid[0])), float(path.sigma(grid[0]))
    z = (alpha * TABLE[0][codes] + sigma * RNG.normal(size=(4, 3, 2))).astype(np.float32)
    roles = jnp.asarray([[GENERATED if first is None else GIVEN, GENERATED, GENERATED]] * 4)
    nats = jax.jit(lambda z: noised_vectors_nats(space, _denoiser(path), z, jnp.asarray(codes), roles, grid))
    np.testing.assert_allclose(nats(jnp.asarray(z)), _truth(alpha, sigma, z.astype(np.float64), first), atol=2e-2)
