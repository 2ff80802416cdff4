"""Flows of normal data, which scale every point: z_r = z_t size(r) / size(t)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# A pair (x, noise) at each node stands for normal data and noise: expectations of squares are exact.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(4)


def average_velocity(size: Callable[[jax.Array], jax.Array]) -> Callable:
    """The exact average velocity `(z [B, 1], r [B], t [B]) -> [B, 1]`; in the limit r = t, the velocity."""
    def average(z, r, t):
        near = jnp.abs(t - r) < 1e-9
        far = (1.0 - size(r) / size(t)) / jnp.where(near, 1.0, t - r)
        slope = jax.vmap(jax.grad(lambda t: jnp.log(size(t))))(t)
        return jnp.where(near, slope, far)[:, None] * z
    return average


def pairs(deviation: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Data and noise [16, 1] at the nodes of a quadrature, and weights [16] that sum to 1."""
    x, noise = (part.reshape(-1, 1) for part in np.meshgrid(NODES, NODES, indexing='ij'))
    weights = np.outer(WEIGHTS, WEIGHTS).ravel()
    return jnp.asarray(deviation * x), jnp.asarray(noise), jnp.asarray(weights / weights.sum())
