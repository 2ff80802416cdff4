"""LPIPS (Zhang et al. 2018, arXiv:1801.03924): distance between images in the features of a classifier.

The network is VGG-16 up to its last convolution, tapped before each pooling. Its weights come from a file.
"""

from pathlib import Path
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import DataError, UserError

STAGES = (2, 2, 3, 3, 3)
"""Convolutions between the poolings of VGG-16."""
SMALLEST = 32
SHIFT, SCALE = np.asarray([[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]], np.float32)
"""From images in [-1, 1] to what the classifier was trained with."""


class PerceptualWeights(NamedTuple):
    """Kernels [3, 3, in, out] and biases [out] of every convolution, and a weight [out] for every tapped channel."""

    kernels: tuple[jax.Array, ...]
    biases: tuple[jax.Array, ...]
    taps: tuple[jax.Array, ...]


def perceptual_loss(weights: PerceptualWeights, output: jax.Array, target: jax.Array) -> jax.Array:
    """Mean LPIPS distance of images [B, H, W, 1 or 3] in [-1, 1], an fp32 scalar.

    Raises UserError for sides below 32, which the poolings leave nothing of.
    """
    chex.assert_equal_shape([output, target])
    if min(output.shape[1:3]) < SMALLEST:
        raise UserError(f'images of {output.shape[1:3]} are too small for LPIPS; it needs sides of {SMALLEST}')
    distances = [jnp.mean(jnp.sum((_unit(a) - _unit(b)) ** 2 * tap[None, None, None], axis=-1))
                 for a, b, tap in zip(features(weights, output), features(weights, target), weights.taps)]
    return jnp.sum(jnp.stack(distances))


def features(weights: PerceptualWeights, images: jax.Array) -> list[jax.Array]:
    """Features [B, H / 2^i, W / 2^i, C_i] of images [B, H, W, 1 or 3] in [-1, 1]; grey ones stand for all colours."""
    x = jnp.broadcast_to(images.astype(jnp.float32), (*images.shape[:-1], 3))
    x = (x - SHIFT.reshape(1, 1, 1, 3)) / SCALE.reshape(1, 1, 1, 3)
    found, layer = [], 0
    for stage, count in enumerate(STAGES):
        if stage:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')
        for _ in range(count):
            x = jax.nn.relu(_convolve(x, weights.kernels[layer], weights.biases[layer]))
            layer += 1
        found.append(x)
    return found


def read_perceptual_weights(path: Path) -> PerceptualWeights:
    """From an `.npz` file of `conv0.kernel`, `conv0.bias`, ... and `tap0`, ... Raises DataError for another file."""
    try:
        with np.load(path) as file:
            return PerceptualWeights(*(tuple(jnp.asarray(file[name.format(i)]) for i in range(count)) for name, count in
                                       (('conv{}.kernel', sum(STAGES)), ('conv{}.bias', sum(STAGES)),
                                        ('tap{}', len(STAGES)))))
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f'{path} does not hold the weights of LPIPS: {error}') from error


def _convolve(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    out = jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return out + bias[None, None, None]


def _unit(x: jax.Array) -> jax.Array:
    return x / (jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-20) + 1e-10)
