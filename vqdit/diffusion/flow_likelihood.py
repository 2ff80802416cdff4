"""Exact likelihoods of vectors under the probability flow of a Gaussian process (arXiv:2011.13456, appendix D.2).

    (1)  log p(x) = log p(z_1) + integral over t from 0 to 1 of div f(z_t, t),  dz/dt = f

with f of `samplers.solvers`, integrated together with z by the classical Runge-Kutta method.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path
from vqdit.diffusion.samplers.solvers import Model, classical_step, velocity

Divergence = Callable[[Callable[[jax.Array], jax.Array], jax.Array], tuple[jax.Array, jax.Array]]
"""A function of a field and z [B, N, C]: the field at z, and its divergence [B]."""


def exact_divergence(field: Callable[[jax.Array], jax.Array], z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The trace of the Jacobian, by N C forward derivatives."""
    basis = jnp.eye(z[0].size, dtype=z.dtype).reshape(-1, 1, *z.shape[1:])
    slopes = jax.vmap(lambda v: jax.jvp(field, (z,), (jnp.broadcast_to(v, z.shape),))[1])(basis)
    return field(z), jnp.sum(slopes * basis, axis=(0, *range(2, z.ndim + 1)))


def hutchinson_divergence(key: jax.Array) -> Divergence:
    """An unbiased estimate by one derivative along random signs, the same ones all along the way."""
    def divergence(field: Callable[[jax.Array], jax.Array], z: jax.Array) -> tuple[jax.Array, jax.Array]:
        signs = jax.random.rademacher(key, z.shape, z.dtype)
        value, slope = jax.jvp(field, (z,), (signs,))
        return value, jnp.sum(slope * signs, axis=tuple(range(1, z.ndim)))
    return divergence


def flow_log_likelihood(model: Model, path: Path, x: jax.Array, grid: jax.Array,
                        divergence: Divergence = exact_divergence) -> jax.Array:
    """(1) in nats, [B], for `x [B, N, C]`.

    `grid [steps + 1]` rises from a noise level above 0, where x is taken to be z, to one where z is as good as
    `sigma` times normal noise.
    """
    def field(state: tuple[jax.Array, jax.Array], t: jax.Array) -> tuple[jax.Array, jax.Array]:
        return divergence(lambda z: velocity(model, path, z, t), state[0])

    step = lambda state, times: (classical_step(field, state, *times), None)
    (z, total), _ = jax.lax.scan(step, (x, jnp.zeros(len(x), x.dtype)), (grid[:-1], grid[1:]))
    sigma, axes = path.sigma(grid[-1]), tuple(range(1, x.ndim))
    return total + jnp.sum(-0.5 * (z / sigma) ** 2 - 0.5 * jnp.log(2 * jnp.pi) - jnp.log(sigma), axis=axes)
