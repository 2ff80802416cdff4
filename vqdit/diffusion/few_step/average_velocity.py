"""Strides of the probability flow: what MeanFlow and shortcut models predict, and how they are sampled.

    (1)  u(z_t, r, t) = (z_t - z_r) / (t - r),   r < t: the average of the velocity dz/dt on the way from t to r
    (2)  u(z_t, t, t) = the velocity at t
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path, slopes
from vqdit.diffusion.gaussian.predictions import spread
from vqdit.diffusion.samplers.solvers import Memory, Solver

AverageVelocity = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""`(z [B, ...], r [B], t [B]) -> u [B, ...]` of (1)."""


def conditional_velocity(path: Path, clean: jax.Array, noise: jax.Array,
                         t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """z_t and dz/dt [B, ...] of one pair of data and noise; the mean of dz/dt given z_t is the velocity of the flow."""
    t = spread(t, clean)
    alpha_slope, sigma_slope = slopes(path, t)
    return path.alpha(t) * clean + path.sigma(t) * noise, alpha_slope * clean + sigma_slope * noise


def stride(average: AverageVelocity, z: jax.Array, t: jax.Array, r: jax.Array) -> jax.Array:
    """z_r [B, ...] from z_t, `t [B]` and `r [B]`: exact for an exact u, however long the stride."""
    return z - spread(t - r, z) * average(z, r, t)


def stride_along(average: AverageVelocity, z: jax.Array, grid: jax.Array) -> jax.Array:
    """z at the end of a falling `grid [steps + 1]`: a sampler of `steps` evaluations."""
    each = lambda z, t: jnp.broadcast_to(t, z.shape[:1])
    step = lambda z, times: (stride(average, z, each(z, times[0]), each(z, times[1])), None)
    return jax.lax.scan(step, z, (grid[:-1], grid[1:]))[0]


@dataclass(frozen=True)
class Strided:
    """Another solver whose model is told where the step ends, `(z, t, s) -> clean`.

    On `Flow`, with `clean` = z - t u, a step of `DDIM` is the stride z - (t - s) u: as exact as u is.
    """

    solver: Solver

    def start(self, z: jax.Array) -> Memory:
        return self.solver.start(z)

    def step(self, keys: jax.Array, model: Callable[..., jax.Array], path: Path, z: jax.Array, memory: Memory,
             t: jax.Array, s: jax.Array) -> tuple[jax.Array, Memory]:
        return self.solver.step(keys, lambda z, t: model(z, t, s), path, z, memory, t, s)
