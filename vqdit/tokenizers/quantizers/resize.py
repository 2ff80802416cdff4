"""Resizing of grids by matrices along each axis, as PyTorch does it, so that published weights mean the same.

`jax.image.resize` differs: its cubic kernel has another slope, and its antialiased linear one is no area average.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.tokenizers.quantizers.base import HIGHEST

SLOPE = -0.75
"""Of the cubic convolution kernel at distance 1 (Keys 1981)."""


def area(x: jax.Array, grid: Sequence[int]) -> jax.Array:
    """Averages [B, *grid, D] over equal areas of `x [B, *size, D]` (adaptive average pooling)."""
    return _along_axes(x, grid, area_matrix)


def cubic(x: jax.Array, grid: Sequence[int]) -> jax.Array:
    """`x [B, *size, D]` interpolated to [B, *grid, D] by cubic convolution, half-pixel centres, edges repeated."""
    return _along_axes(x, grid, cubic_matrix)


@functools.cache
def area_matrix(size: int, target: int) -> np.ndarray:
    """fp32 [target, size]; place i averages those from floor(i size / target) to ceil((i + 1) size / target)."""
    matrix = np.zeros((target, size))
    for i in range(target):
        start, end = i * size // target, -((i + 1) * size // -target)
        matrix[i, start:end] = 1 / (end - start)
    return matrix.astype(np.float32)


@functools.cache
def cubic_matrix(size: int, target: int) -> np.ndarray:
    """fp32 [target, size]."""
    matrix = np.zeros((target, size))
    for i in range(target):
        centre = (i + 0.5) * size / target - 0.5
        for j in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            matrix[i, min(max(j, 0), size - 1)] += _kernel(abs(centre - j))
    return matrix.astype(np.float32)


def _kernel(distance: float) -> float:
    if distance <= 1:
        return (SLOPE + 2) * distance**3 - (SLOPE + 3) * distance**2 + 1
    if distance < 2:
        return SLOPE * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    return 0.0


def _along_axes(x: jax.Array, grid: Sequence[int], matrix: Callable[[int, int], np.ndarray]) -> jax.Array:
    for axis, target in enumerate(grid, start=1):
        if x.shape[axis] != target:
            weights = jnp.asarray(matrix(x.shape[axis], target))
            x = jnp.moveaxis(jnp.tensordot(weights, x, axes=(1, axis), precision=HIGHEST), 0, axis)
    return x
