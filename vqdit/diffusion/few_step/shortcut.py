"""Shortcut models (arXiv:2410.12557): a long stride is taught by two of half its length.

    (1)  u(z_t, t - 2 d, t) = (u(z_t, t - d, t) + u(z', t - 2 d, t - d)) / 2,   z' = z_t - d u(z_t, t - d, t)

Where the half strides on the right are the shortest they may be guided: then all strides are of the guided flow, while
the velocity itself stays that of the data.
"""

import jax
import jax.numpy as jnp

from vqdit.diffusion.few_step.average_velocity import AverageVelocity, conditional_velocity
from vqdit.diffusion.gaussian.paths import Path
from vqdit.diffusion.gaussian.predictions import spread
from vqdit.diffusion.guidance import Guidance


def guided_below(length: float, guidance: Guidance, average: AverageVelocity,
                 without: AverageVelocity) -> AverageVelocity:
    """The average velocity under a condition, guided away from that without it on strides shorter than `length`."""
    def guided(z: jax.Array, r: jax.Array, t: jax.Array) -> jax.Array:
        u = average(z, r, t)
        return jnp.where(spread(t - r, z) < length, guidance(u, without(z, r, t), spread(t, z)), u)
    return guided


def shortcut_target(average: AverageVelocity, z: jax.Array, t: jax.Array, d: jax.Array) -> jax.Array:
    """The right side of (1), [B, ...], for half strides `d [B]`; no gradient flows into it."""
    first = average(z, t - d, t)
    second = average(z - spread(d, z) * first, t - 2.0 * d, t - d)
    return jax.lax.stop_gradient(0.5 * (first + second))


def shortcut_loss(average: AverageVelocity, path: Path, clean: jax.Array, noise: jax.Array, t: jax.Array,
                  d: jax.Array, teacher: AverageVelocity | None = None) -> jax.Array:
    """Squared errors [B], summed: of strides 2 d against (1) where `d [B]` > 0, of the velocity where it is 0.

    The `teacher` makes the right side of (1); by default it is the model itself. t >= 2 d. Three quarters of a batch
    should have d = 0; the other d are halves of 1, 1/2, 1/4, ... and t a multiple of 2 d, so that each stride is taught
    at the levels at which it is used.
    """
    z, velocity = conditional_velocity(path, clean, noise, t)
    target = jnp.where(spread(d, z) > 0, shortcut_target(teacher or average, z, t, d), velocity)
    return jnp.sum((average(z, t - 2.0 * d, t) - target) ** 2, axis=tuple(range(1, z.ndim)))
