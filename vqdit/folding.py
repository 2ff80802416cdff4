"""Neighbouring positions folded into channels, in any number of dimensions: blocks and back, or all around one."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def space_to_depth(x: jax.Array, patch: Sequence[int]) -> jax.Array:
    """Folds blocks of `patch` positions into channels: [B, *size, C] -> [B, *size/patch, prod(patch) * C]."""
    batch, *size, channels = x.shape
    rank = len(patch)
    folded = [extent for side, step in zip(size, patch, strict=True) for extent in (side // step, step)]
    x = x.reshape(batch, *folded, channels)
    outer, inner = range(1, 2 * rank, 2), range(2, 2 * rank + 1, 2)
    x = x.transpose(0, *outer, *inner, 2 * rank + 1)
    return x.reshape(batch, *(side // step for side, step in zip(size, patch)), -1)


def depth_to_space(x: jax.Array, patch: Sequence[int]) -> jax.Array:
    """The inverse of `space_to_depth`."""
    batch, *size, _ = x.shape
    rank = len(patch)
    x = x.reshape(batch, *size, *patch, -1)
    order = [axis for i in range(rank) for axis in (1 + i, 1 + rank + i)]
    x = x.transpose(0, *order, 2 * rank + 1)
    return x.reshape(batch, *(side * step for side, step in zip(size, patch)), -1)


def with_neighbours(x: jax.Array) -> jax.Array:
    """Every position with those around it, zeros beyond the edge: [B, *size, C] -> [B, *size, 3^rank * C]."""
    _, *size, _ = x.shape
    padded = jnp.pad(x, ((0, 0), *((1, 1),) * len(size), (0, 0)))
    shifts = itertools.product(range(3), repeat=len(size))
    return jnp.concatenate([padded[:, *(slice(shift, shift + side) for shift, side in zip(by, size))]
                            for by in shifts], axis=-1)
