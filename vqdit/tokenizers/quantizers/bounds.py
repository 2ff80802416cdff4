"""The published conventions of finite scalar quantization: from a real number to a position on a scale of L levels.

`position` is what is rounded to a digit, and `value` turns positions, rounded or not, into numbers for the decoder.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np


class Bound(Protocol):
    """Pure functions along the last axis; `levels` int [D], broadcast against it, are at least `fewest`."""

    fewest: ClassVar[int]

    def position(self, z: jax.Array, levels: np.ndarray) -> jax.Array: ...

    def digit(self, position: jax.Array, levels: np.ndarray) -> jax.Array: ...

    def value(self, position: jax.Array, levels: np.ndarray) -> jax.Array: ...

    def rounded(self, digit: jax.Array, levels: np.ndarray) -> jax.Array: ...  # the position of a digit


class _Centred:
    """Positions count from the middle level, L // 2, and so values are -1 .. 1 for odd L, -1 .. 1 - 2/L for even."""

    fewest: ClassVar[int] = 3
    epsilon: float

    def position(self, z: jax.Array, levels: np.ndarray) -> jax.Array:
        half = ((levels - 1) * (1 + self.epsilon) / 2).astype(np.float32)
        offset = np.where(levels % 2 == 0, 0.5, 0.0).astype(np.float32)
        return jnp.tanh(z + self.shift(offset / half)) * half - offset

    def shift(self, ratio: np.ndarray) -> np.ndarray:
        """What is added to z so that z = 0 lies at position 0, or near it; the convention says how."""
        raise NotImplementedError

    def digit(self, position: jax.Array, levels: np.ndarray) -> jax.Array:
        return jnp.round(position).astype(jnp.int32) + levels // 2

    def rounded(self, digit: jax.Array, levels: np.ndarray) -> jax.Array:
        return (digit - levels // 2).astype(jnp.float32)

    def value(self, position: jax.Array, levels: np.ndarray) -> jax.Array:
        return position / (levels // 2).astype(np.float32)


@dataclass(frozen=True)
class TangentBound(_Centred):
    """The authors' notebook: half = (L - 1)(1 - 1e-3) / 2, shifted by tan(offset / half) for even L."""

    epsilon: float = -1e-3

    def shift(self, ratio: np.ndarray) -> np.ndarray:
        return np.tan(ratio)


@dataclass(frozen=True)
class ArctanhBound(_Centred):
    """As vector-quantize-pytorch, Cosmos and VidTok: half = (L - 1)(1 + 1e-3) / 2, shifted by artanh(offset / half)."""

    epsilon: float = 1e-3

    def shift(self, ratio: np.ndarray) -> np.ndarray:
        return np.arctanh(ratio)


class _Symmetric:
    """Positions count from the lowest level, and values are -1 .. 1 for every L."""

    fewest: ClassVar[int] = 2

    def position(self, z: jax.Array, levels: np.ndarray) -> jax.Array:
        return (self.squash(z) + 1) / 2 * (levels - 1).astype(np.float32)

    def squash(self, z: jax.Array) -> jax.Array:
        """z brought into [-1, 1]; the convention says how."""
        raise NotImplementedError

    def digit(self, position: jax.Array, levels: np.ndarray) -> jax.Array:
        return jnp.floor(position + 0.5).astype(jnp.int32)

    def rounded(self, digit: jax.Array, levels: np.ndarray) -> jax.Array:
        return digit.astype(jnp.float32)

    def value(self, position: jax.Array, levels: np.ndarray) -> jax.Array:
        # A whole number over another: rounded once, the same in every program.
        return (2 * position - (levels - 1).astype(np.float32)) / (levels - 1).astype(np.float32)


@dataclass(frozen=True)
class SymmetricBound(_Symmetric):
    """The symmetric variant of Stable Audio's codec (Parker et al. 2024, arXiv:2411.19842, section 3.2)."""

    def squash(self, z: jax.Array) -> jax.Array:
        return jnp.tanh(z)


@dataclass(frozen=True)
class ClippedBound(_Symmetric):
    """The symmetric variant for latents that lie in [-1, 1] already, such as the residuals of a level before."""

    def squash(self, z: jax.Array) -> jax.Array:
        return jnp.clip(z, -1.0, 1.0)


BOUNDS = {'tangent': TangentBound, 'arctanh': ArctanhBound, 'symmetric': SymmetricBound, 'clipped': ClippedBound}
