"""Shortcut models (arXiv:2410.12557): a long stride is taught by two of half its length.

    (1)  u(z_t, t - 2 d, t) = (u(z_t, t - d, t) + u(z', t - 2 d, t - d)) / 2,   z' = z_t - d u(z_t, t - d, t)
"""

import jax
import jax.numpy as jnp

from vqdit.diffusion.few_step.average_velocity import AverageVelocity, conditional_velocity
from vqdit.diffusion.gaussian.paths import Path
from vqdit.diffusion.gaussian.predictions import spread


def shortcut_target(average: AverageVelocity, z: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    """The right side of (1), [B, ...], for half strides `d [B]`; no gradient flows into it."""
    first = average(z, t - d, t)
    second = average(z - spread(d, z) * first, t - 2.0 * d, t - d)
    return jax.lax.stop_gradient(0.5 * (first + second))


def shortcut_loss(average: AverageVelocity, path: Path, clean: jax.Array, noise: jax.Array, t: jax.Array,
                  d: jax.Array) -> jax.Array:
    """Squared errors [B], summed: of strides 2 d against (1) where `d [B]` > 0, of the velocity where it is 0.

    t >= 2 d. Three quarters of a batch should have d = 0; the other d are halves of 1, 1/2, 1/4, ... and t a multiple
    of 2 d, so that each stride is taught at the levels at which it is used.
    """
    z, velocity = conditional_velocity(path, clean, noise, t)
    target = jnp.where(spread(d, z) > 0, shortcut_target(average, z, t, d), velocity)
    return jnp.sum((average(z, t - 2.0 * d, t) - target) ** 2, axis=tuple(range(1, z.ndim)))
