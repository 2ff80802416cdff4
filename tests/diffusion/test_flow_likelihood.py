"""Likelihoods by the probability flow of normal data with correlations, whose density is known."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from vqdit.diffusion.flow_likelihood import flow_log_likelihood, hutchinson_divergence
from vqdit.diffusion.gaussian import Trigonometric

MEAN, COVARIANCE = np.array([0.5, -0.3, 0.1]), np.array([[1.0, 0.6, 0.2], [0.6, 0.8, -0.3], [0.2, -0.3, 0.5]])


def _clean_mean(z, t):
    """E[x | z], for z [B, 1, 3]."""
    alpha, sigma = Trigonometric().alpha(t), Trigonometric().sigma(t)
    gain = alpha * COVARIANCE @ jnp.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * jnp.eye(3))
    return MEAN[None, None] + (z - alpha * MEAN[None, None]) @ gain.T


def test_the_trace_is_exact_and_random_signs_estimate_it():
    with jax.enable_x64(True):
        path, grid, draws = Trigonometric(), jnp.linspace(1e-3, 1.0, 65), 400
        x = jnp.asarray([[[0.2, 0.4, -0.5]], [[1.5, 0.0, 0.3]]])
        alpha, sigma = float(path.alpha(grid[0])), float(path.sigma(grid[0]))
        law = stats.multivariate_normal(alpha * MEAN, alpha**2 * COVARIANCE + sigma**2 * np.eye(3))
        truth = law.logpdf(np.asarray(x)[:, 0])
        exact = jax.jit(lambda x: flow_log_likelihood(_clean_mean, path, x, grid))(x)
        np.testing.assert_allclose(exact, truth, atol=1e-4)
        estimate = lambda key: flow_log_likelihood(_clean_mean, path, x, grid, hutchinson_divergence(key))
        guesses = np.asarray(jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(0), draws)))
        assert (guesses.std(0) > 1e-3).all(), 'the channels touch each other'
        assert (np.abs(guesses.mean(0) - truth) < 4 * guesses.std(0) / np.sqrt(draws) + 1e-4).all()
