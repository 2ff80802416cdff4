"""The protocol of all quantizers.

A quantizer is a Linen module with

    quantizer(z, train=..., mask=..., key=...) -> Quantized     z [..., dimension]
    quantizer.lookup(codes) -> vectors                          codes int32 [..., levels]
    quantizer.num_codes, quantizer.levels, quantizer.radices, quantizer.dimension, quantizer.bits_per_token

Its floating-point work is fp32 with matmul precision HIGHEST whatever the model's dtype, because half-precision
distances and index arithmetic pick wrong codes. Learned state lives in the `codebook` collection.
"""

from typing import NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp


class Quantized(NamedTuple):
    """What a quantizer makes of latents `z [..., dimension]`.

    Attributes:
        vectors: the quantized latents fp32 [..., dimension], carrying the gradient estimator.
        codes: int32 [..., levels].
        loss: fp32 scalar that is added to the reconstruction loss.
        metrics: scalars worth logging.
    """

    vectors: jax.Array
    codes: jax.Array
    loss: jax.Array
    metrics: dict[str, jax.Array]


class Quantizer(Protocol):
    """What the autoencoder asks of a quantizer."""

    dimension: int
    num_codes: int
    levels: int
    radices: tuple[int, ...]
    bits_per_token: float

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized: ...

    def lookup(self, codes: jax.Array) -> jax.Array: ...


def straight_through(z: jax.Array, quantized: jax.Array) -> jax.Array:
    """`quantized`, with the gradient passed to `z` unchanged (Bengio et al. 2013)."""
    return z + jax.lax.stop_gradient(quantized - z)


def check_latents(z: jax.Array, dimension: int) -> jax.Array:
    """`z` as fp32. Raises AssertionError, at trace time, when its last axis is not `dimension`."""
    chex.assert_axis_dimension(z, -1, dimension)
    return z.astype(jnp.float32)


def usage_metrics(codes: jax.Array, num_codes: int, mask: jax.Array | None = None) -> dict[str, jax.Array]:
    """Share of the codebook seen in this batch, and the perplexity of the codes, `exp(entropy)`.

    Args:
        codes: int32 [...], one level.
        mask: bool [...], which codes count; all by default.
    """
    weights = jnp.ones(codes.shape, jnp.float32) if mask is None else mask.astype(jnp.float32)
    counts = jax.ops.segment_sum(weights.reshape(-1), codes.reshape(-1), num_codes)
    probabilities = counts / jnp.maximum(counts.sum(), 1.0)
    entropy = -jnp.sum(probabilities * jnp.log(jnp.maximum(probabilities, 1e-30)))
    return {'usage': jnp.mean(counts > 0), 'perplexity': jnp.exp(entropy)}
