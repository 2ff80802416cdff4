"""Gradient estimators: how a gradient gets through the choice of a code.

An estimator is a frozen dataclass, a pure function `(z, quantized, key) -> vectors` of latents and their code vectors
[..., D]. Those that are exact return `quantized` to the last bit and differ in the gradient alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from vqdit.errors import UserError

TINY = 1e-12


class Estimator(Protocol):
    """`(z, quantized, key) -> vectors`; `key` is needed by those that draw noise."""

    def __call__(self, z: jax.Array, quantized: jax.Array, key: jax.Array | None) -> jax.Array: ...


def carry(value: jax.Array, carrier: jax.Array) -> jax.Array:
    """Exactly `value`, with the gradient of `carrier`; both of one shape."""
    return jax.lax.stop_gradient(value) + (carrier - jax.lax.stop_gradient(carrier))


def straight_through(z: jax.Array, quantized: jax.Array) -> jax.Array:
    """`quantized`, with the gradient passed to `z` unchanged (Bengio et al. 2013, arXiv:1308.3432)."""
    return carry(quantized, z)


@dataclass(frozen=True)
class StraightThrough:
    """The gradient of the code vector is that of the latent."""

    def __call__(self, z: jax.Array, quantized: jax.Array, key: jax.Array | None) -> jax.Array:
        return straight_through(z, quantized)


@dataclass(frozen=True)
class CodeOnly:
    """The code vector as it is: the gradient reaches the codebook, if that is learned by it, and not the latent.

    For the levels of a residual quantizer, when one estimator around them all has both gradients.
    """

    def __call__(self, z: jax.Array, quantized: jax.Array, key: jax.Array | None) -> jax.Array:
        return quantized


@dataclass(frozen=True)
class Rotation:
    """The rotation trick (Fifty et al. 2024, arXiv:2410.06424, section 4.2).

    The gradient is that of s R z, where R turns z towards its code and s scales it to the code's length;
    R = I - 2 w w^T + 2 q u^T with unit vectors u of z, q of the code and w of u + q. Where z or the code is zero there
    is no angle, and the gradient goes straight through.
    """

    def __call__(self, z: jax.Array, quantized: jax.Array, key: jax.Array | None) -> jax.Array:
        source, target = jax.lax.stop_gradient((z, quantized))
        length, reach = _length(source), _length(target)
        u, q = source / jnp.maximum(length, TINY), target / jnp.maximum(reach, TINY)
        # Half a turn has no plane of its own; without w it is a reflection.
        between = _length(u + q)
        w = jnp.where(between > 1e-3, (u + q) / jnp.maximum(between, TINY), 0.0)
        turned = z - 2 * w * _dot(w, z) + 2 * q * _dot(u, z)
        rotated = turned * (reach / jnp.maximum(length, TINY))
        return carry(quantized, jnp.where((length > TINY) & (reach > TINY), rotated, z))


@dataclass(frozen=True)
class DirectionalNoise:
    """DiVeQ (Vali et al. 2025, arXiv:2509.26469): z + |q - z| d, with d a slightly noisy direction towards the code.

    The gradient of the length reaches latent and codebook. With `variance` 0 it is exact to rounding.
    """

    variance: float = 1e-3

    def __call__(self, z: jax.Array, quantized: jax.Array, key: jax.Array | None) -> jax.Array:
        error = quantized - z
        noise = self.variance**0.5 * jax.random.normal(_needed(key, self), z.shape)
        return z + _unit(jax.lax.stop_gradient(error) + noise) * _safe_length(error)


@dataclass(frozen=True)
class NoiseSubstitution:
    """NSVQ (Vali and Baeckstroem 2022, doi:10.1109/ACCESS.2022.3157880): z + |q - z| d, with d a random direction.

    Decoder and codebook learn from errors of the right size in any direction.
    """

    def __call__(self, z: jax.Array, quantized: jax.Array, key: jax.Array | None) -> jax.Array:
        return z + _unit(jax.random.normal(_needed(key, self), z.shape)) * _safe_length(quantized - z)


ESTIMATORS: dict[str, Callable[..., Estimator]] = {
    'straight_through': StraightThrough, 'rotation': Rotation, 'directional': DirectionalNoise,
    'stochastic': NoiseSubstitution, 'code_only': CodeOnly}


def _needed(key: jax.Array | None, estimator: Estimator) -> jax.Array:
    if key is None:
        raise UserError(f'the estimator {estimator} draws noise; pass key=... when training')
    return key


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b, axis=-1, keepdims=True)


def _length(x: jax.Array) -> jax.Array:
    return jnp.sqrt(_dot(x, x))


def _safe_length(x: jax.Array) -> jax.Array:
    """Length [..., 1], whose gradient at zero is zero."""
    square = _dot(x, x)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def _unit(x: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(x / jnp.maximum(_length(x), TINY))
