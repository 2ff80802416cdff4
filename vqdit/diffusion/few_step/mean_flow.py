"""MeanFlow (arXiv:2505.13447): the average velocity learned from its own derivative, without a teacher.

Differentiating (t - r) u(z_t, r, t) = z_t - z_r in t, along the flow with r held, gives

    (1)  u = v - (t - r) (v . du/dz + du/dt)

in which v may be the velocity of a single pair of data and noise: the right side is linear in it, and a square error
learns its mean. To learn the average of the guided flow, v is replaced by what has the guided velocity as its mean
(section 4.2 and appendix B.1, equations (19) to (21)), with the model's own velocities u(z, t, t) under and without the
condition,

    (2)  (1 - k) (u_without + w (v - u_without)) + k u_with

for any k: the weight is w, of which the paper writes (1 - k) w.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vqdit.diffusion.few_step.average_velocity import AverageVelocity, conditional_velocity
from vqdit.diffusion.gaussian.paths import Path
from vqdit.diffusion.gaussian.predictions import spread
from vqdit.diffusion.guidance import Guidance

Guide = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""`(z [B, ...], v [B, ...], t [B]) -> [B, ...]`: the velocity of a pair, and what is learned in its place."""


def unguided(_z: jax.Array, velocity: jax.Array, _t: jax.Array) -> jax.Array:
    return velocity


def guide(guidance: Guidance, average: AverageVelocity, without: AverageVelocity, mixed: float = 0.0) -> Guide:
    """(2) with k = `mixed`; `average` is under the condition. No gradient flows into it."""
    def guided(z: jax.Array, velocity: jax.Array, t: jax.Array) -> jax.Array:
        towards = guidance(velocity, without(z, t, t), spread(t, z))
        own = mixed * average(z, t, t) if mixed else 0.0
        return jax.lax.stop_gradient((1.0 - mixed) * towards + own)
    return guided


def mean_flow_target(average: AverageVelocity, z: jax.Array, velocity: jax.Array, r: jax.Array,
                     t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """u and the right side of (1), each [B, ...], by one forward derivative; no gradient flows into the target."""
    u, change = jax.jvp(average, (z, r, t), (velocity, jnp.zeros_like(r), jnp.ones_like(t)))
    return u, jax.lax.stop_gradient(velocity - spread(t - r, z) * change)


def adaptive(squared: jax.Array, power: float = 1.0, offset: float = 1e-3) -> jax.Array:
    """Squared errors [B] over (themselves + offset)^power, which is held fixed: 0 is the squared error, 0.5 nearly its
    root, and 1 gives every example the same pull (section 4.3)."""
    return squared / jax.lax.stop_gradient((squared + offset) ** power)


def mean_flow_loss(average: AverageVelocity, path: Path, clean: jax.Array, noise: jax.Array, r: jax.Array,
                   t: jax.Array, guided: Guide = unguided) -> jax.Array:
    """Squared errors [B] of u against (1), summed; `r [B]` <= `t [B]`, and where they are equal this is flow matching,
    which should be so in about three quarters of a batch."""
    z, velocity = conditional_velocity(path, clean, noise, t)
    u, target = mean_flow_target(average, z, guided(z, velocity, t), r, t)
    return jnp.sum((u - target) ** 2, axis=tuple(range(1, z.ndim)))
