"""Losses of values and of their neighbourhoods, and figures of how well tokenizers reconstruct.

All take `output` and `target` [B, *size, C] and return an fp32 scalar.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError

WINDOW, SIGMA = 11, 1.5
"""Width and standard deviation of the Gaussian window of structural similarity."""


def reconstruction_loss(output: jax.Array, target: jax.Array, absolute: float, squared: float) -> jax.Array:
    """absolute * mean |output - target| + squared * mean (output - target)^2, an fp32 scalar."""
    error = _difference(output, target)
    return absolute * jnp.mean(jnp.abs(error)) + squared * jnp.mean(error**2)


def charbonnier_loss(output: jax.Array, target: jax.Array, epsilon: float = 1e-3) -> jax.Array:
    """Mean of sqrt(error^2 + epsilon^2), |error| with a smooth foot (Lai et al. 2017, arXiv:1704.03915)."""
    return jnp.mean(jnp.sqrt(_difference(output, target) ** 2 + epsilon**2))


def binary_cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Mean in nats of logits against targets in [0, 1], as for grey pixels that are probabilities."""
    chex.assert_equal_shape([logits, target])
    logits, target = logits.astype(jnp.float32), target.astype(jnp.float32)
    return jnp.mean(jax.nn.softplus(logits) - target * logits)


def gradient_loss(output: jax.Array, target: jax.Array) -> jax.Array:
    """Mean absolute error of the differences between neighbours, averaged over the axes of `size`.

    Edges weigh more than in the error itself, and a constant offset weighs nothing (Mathieu et al. 2015,
    arXiv:1511.05440, section 3.2).
    """
    error = _difference(output, target)
    return jnp.mean(jnp.stack([jnp.mean(jnp.abs(jnp.diff(error, axis=axis))) for axis in range(1, error.ndim - 1)]))


def dissimilarity_loss(output: jax.Array, target: jax.Array, peak: float = 2.0) -> jax.Array:
    """1 - SSIM of images (Wang et al. 2004, doi:10.1109/TIP.2003.819861, eq. 13); `peak` is the range of the data.

    Raises UserError for sides below the window's 11.
    """
    if min(output.shape[1:-1]) < WINDOW:
        raise UserError(f'images of {output.shape[1:-1]} have no structural similarity; its window is {WINDOW} wide')
    x, y = output.astype(jnp.float32), target.astype(jnp.float32)
    mean_x, mean_y = _smooth(x), _smooth(y)
    variance_x, variance_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    a, b = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance = (2 * mean_x * mean_y + a) / (mean_x**2 + mean_y**2 + a)
    return 1 - jnp.mean(luminance * (2 * covariance + b) / (variance_x + variance_y + b))


def peak_signal_to_noise(output: jax.Array, target: jax.Array, peak: float = 2.0) -> jax.Array:
    """PSNR in decibels, 10 log10(peak^2 / mean squared error); `peak` is the range of the data, 2 for [-1, 1]."""
    error = jnp.mean(_difference(output, target) ** 2)
    return 10.0 * jnp.log10(peak**2 / jnp.maximum(error, 1e-20))


def _difference(output: jax.Array, target: jax.Array) -> jax.Array:
    chex.assert_equal_shape([output, target])
    return output.astype(jnp.float32) - target.astype(jnp.float32)


def _smooth(x: jax.Array) -> jax.Array:
    """Averages of `x [B, *size, C]` under the Gaussian window, where it lies wholly inside."""
    weights = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in range(1, x.ndim - 1):
        places = x.shape[axis] - WINDOW + 1
        shifted = [weight * jax.lax.slice_in_dim(x, k, k + places, axis=axis) for k, weight in enumerate(weights)]
        x = sum(shifted[1:], start=shifted[0])
    return x
