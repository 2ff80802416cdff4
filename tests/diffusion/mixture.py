"""A Gaussian mixture in one dimension, whose score, clean mean and density are known at every noise level."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from vqdit.diffusion.gaussian import Path

WEIGHTS, MEANS, DEVIATIONS = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.4, 0.6])


def _constants(z: jax.Array) -> list[jax.Array]:
    """In the type of z: JAX remembers an array of NumPy in the type that another test first used it in."""
    return [jnp.asarray(constant, z.dtype) for constant in (WEIGHTS, MEANS, DEVIATIONS)]


def _parts(path: Path, z: jax.Array, t: jax.Array):
    """Log-densities of the components at z [...], variances and means; each [..., 2]."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    weights, means, deviations = _constants(z)
    variance = (alpha * deviations) ** 2 + sigma**2
    shifted = z[..., None] - (alpha * means).reshape((1,) * z.ndim + (-1,))
    variance = variance.reshape(shifted.shape[-1:]).reshape((1,) * z.ndim + (-1,))
    logs = jnp.log(weights).reshape(variance.shape) - 0.5 * shifted**2 / variance - 0.5 * jnp.log(2 * jnp.pi * variance)
    return logs, shifted / variance


def log_density(path: Path, z: jax.Array, t: jax.Array) -> jax.Array:
    """log q(z_t) [...]."""
    return jax.nn.logsumexp(_parts(path, z, t)[0], axis=-1)


def clean_mean(path: Path):
    """The model of a perfect network: E[x | z_t = z]."""
    def model(z: jax.Array, t: jax.Array) -> jax.Array:
        logs, pulls = _parts(path, z, t)
        shares, alpha = jax.nn.softmax(logs), path.alpha(t)
        _, means, deviations = (part.reshape((1,) * z.ndim + (-1,)) for part in _constants(z))
        each = means + alpha * deviations**2 * pulls
        return jnp.sum(shares * each, axis=-1)
    return model


def transported(path: Path, points: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Where the flow takes `points [n]` from one noise level to another, by quantiles, which it keeps."""
    def cdf(z: np.ndarray, t: float) -> np.ndarray:
        alpha, sigma = (float(part(jnp.asarray(t))) for part in (path.alpha, path.sigma))
        return sum(w * stats.norm.cdf(z, alpha * m, np.hypot(alpha * d, sigma))
                   for w, m, d in zip(WEIGHTS, MEANS, DEVIATIONS))
    low, high = np.full_like(points, -10.0), np.full_like(points, 10.0)
    for _ in range(80):
        middle = 0.5 * (low + high)
        below = cdf(middle, stop) < cdf(points, start)
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return middle
