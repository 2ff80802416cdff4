"""Losses of tokenizers, and figures of how well they reconstruct."""

import chex
import jax
import jax.numpy as jnp


def reconstruction_loss(output: jax.Array, target: jax.Array, absolute: float, squared: float) -> jax.Array:
    """absolute * mean |output - target| + squared * mean (output - target)^2, an fp32 scalar."""
    chex.assert_equal_shape([output, target])
    error = output.astype(jnp.float32) - target.astype(jnp.float32)
    return absolute * jnp.mean(jnp.abs(error)) + squared * jnp.mean(error**2)


def peak_signal_to_noise(output: jax.Array, target: jax.Array, peak: float = 2.0) -> jax.Array:
    """PSNR in decibels, 10 log10(peak^2 / mean squared error); `peak` is the range of the data, 2 for [-1, 1]."""
    chex.assert_equal_shape([output, target])
    error = jnp.mean((output.astype(jnp.float32) - target.astype(jnp.float32)) ** 2)
    return 10.0 * jnp.log10(peak**2 / jnp.maximum(error, 1e-20))
