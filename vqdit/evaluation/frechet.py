"""Frechet distance between two sets in any features: rFID with those of Inception, and its like with others."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.tokenizers.losses.perceptual import features, read_perceptual_weights

Features = Callable[[np.ndarray], np.ndarray]
"""uint8 [B, H, W, C] -> [B, D]."""


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) of features [n, D] (Heusel et al. 2017, arXiv:1706.08500, eq. 6).

    Raises UserError for fewer than 2 of either.
    """
    if min(len(a), len(b)) < 2:
        raise UserError(f'a Frechet distance of {len(a)} and {len(b)} examples has no covariance; give at least 2')
    a, b = a.astype(np.float64), b.astype(np.float64)
    first, second = (np.atleast_2d(np.cov(part, rowvar=False)) for part in (a, b))
    # A B has the eigenvalues of the symmetric R B R with R R = A, which round better.
    values, axes = np.linalg.eigh(first)
    root = axes * np.sqrt(np.maximum(values, 0.0)) @ axes.T
    common = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0.0)).sum()
    shift = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
    return float(max(shift + np.trace(first) + np.trace(second) - 2 * common, 0.0))


def coarse_pixels(pictures: np.ndarray, side: int = 8) -> np.ndarray:
    """The means over the squares of a grid, [B, side * side * C]: features that need no file, and see only layout."""
    rows, columns = (np.array_split(np.arange(length), side) for length in pictures.shape[1:3])
    means = [pictures[:, row][:, :, column].mean(axis=(1, 2)) for row in rows for column in columns]
    return np.concatenate(means, axis=1) / 255.0


def perceptual_features(weights: Path) -> Features:
    """Means over places of the last features of the network of LPIPS, from a file for `read_perceptual_weights`."""
    network = read_perceptual_weights(weights)
    last = jax.jit(lambda x: jnp.mean(features(network, x.astype(jnp.float32) / 127.5 - 1)[-1], axis=(1, 2)))
    return lambda pictures: np.asarray(last(pictures))
