"""In which sense a code is near: what is compared with the codebook, and what a code stands for."""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp


class Metric(Protocol):
    """`keys(x)` are compared by Euclidean distance; `values(x)` are latents and codes as the decoder sees them."""

    def keys(self, x: jax.Array) -> jax.Array: ...

    def values(self, x: jax.Array) -> jax.Array: ...


@dataclass(frozen=True)
class Euclidean:
    """Vectors as they are."""

    def keys(self, x: jax.Array) -> jax.Array:
        return x

    def values(self, x: jax.Array) -> jax.Array:
        return x


@dataclass(frozen=True)
class Cosine:
    """Everything on the unit sphere (ViT-VQGAN, arXiv:2110.04627), where the nearest has the largest cosine."""

    def keys(self, x: jax.Array) -> jax.Array:
        return normalise(x)

    def values(self, x: jax.Array) -> jax.Array:
        return normalise(x)


@dataclass(frozen=True)
class Angular:
    """Compared by direction alone, while the codes keep their length (DAC, arXiv:2306.06546)."""

    def keys(self, x: jax.Array) -> jax.Array:
        return normalise(x)

    def values(self, x: jax.Array) -> jax.Array:
        return x


METRICS = {'euclidean': Euclidean, 'cosine': Cosine, 'angular': Angular}


def normalise(vectors: jax.Array) -> jax.Array:
    """Unit length along the last axis, fp32; a zero vector stays zero, with a gradient of zero."""
    square = jnp.sum(vectors**2, axis=-1, keepdims=True)
    # Asked in this way, NaN stays NaN.
    zero = square <= 1e-12
    return jnp.where(zero, 0.0, vectors * jax.lax.rsqrt(jnp.where(zero, 1.0, square)))
