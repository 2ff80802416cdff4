"""Bits into codes and back, and the entropies of codes whose bits are independent given the latent.

With p_i = sigmoid(logit_i) for bit i, the distribution of a token over all 2^B codes is a product. Its entropy is a
sum over bits. The batch's distribution is the mean over tokens t of such products, and with the bits in two halves it
is sum_t a_t(u) b_t(v) / T, one matrix product of [2^(B/2), T] and [T, 2^(B/2)]: exact, with nothing of the size
[T, 2^B] (LFQ, arXiv:2310.05737, eq. 6, computes the full table).
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.tokenizers.quantizers.base import HIGHEST, along_last, weighted_mean

BitOrder = Literal['big', 'little']
"""Which bit of a code the first dimension is: "big" the most significant (BSQ, vector-quantize-pytorch), "little" the
least (Open-MAGVIT2, MaskBit)."""


def pack_bits(bits: jax.Array, order: BitOrder) -> jax.Array:
    """Codes int32 [...] of bits bool [..., B]."""
    return jnp.sum(bits.astype(jnp.int32) * _place_values(bits, order), axis=-1, dtype=jnp.int32)


def unpack_bits(codes: jax.Array, width: int, order: BitOrder) -> jax.Array:
    """Bits bool [..., B] of codes int32 [...]."""
    bits = jnp.zeros((*codes.shape, width), jnp.int32)
    return (codes[..., None] // _place_values(bits, order)) % 2 == 1


def token_entropy(logits: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean over tokens of the entropy of their codes, in nats; `logits [T, B]`, `weights [T]`."""
    p = jax.nn.sigmoid(logits)
    entropies = p * jax.nn.softplus(-logits) + (1 - p) * jax.nn.softplus(logits)
    return weighted_mean(jnp.sum(entropies, axis=-1), weights)


def batch_entropy(logits: jax.Array, weights: jax.Array, group: int) -> jax.Array:
    """Entropy of the mean over tokens of their distributions over codes, in nats.

    Bits in one group of `group` are taken together. With one group it is exact; with more it is the sum of the
    entropies of the groups, which is an upper bound.
    """
    width = logits.shape[-1]
    return jnp.sum(jnp.stack([_joint_entropy(logits[:, start:start + group], weights)
                              for start in range(0, width, group)]))


def _joint_entropy(logits: jax.Array, weights: jax.Array) -> jax.Array:
    half = logits.shape[-1] // 2
    low = _products(logits[:, :half]) * (weights / jnp.maximum(weights.sum(), 1.0))[:, None]
    mean = jnp.matmul(low.T, _products(logits[:, half:]), precision=HIGHEST)
    # An epsilon inside of the logarithm: its slope at zero stays finite.
    return -jnp.sum(mean * jnp.log(mean + 1e-20))


def _products(logits: jax.Array) -> jax.Array:
    """Probabilities of all values of B bits, [T, 2^B]."""
    table = jnp.ones((logits.shape[0], 1))
    for bit in range(logits.shape[1]):
        p = jax.nn.sigmoid(logits[:, bit:bit + 1])
        table = jnp.concatenate([table * (1 - p), table * p], axis=1)
    return table


def _place_values(bits: jax.Array, order: BitOrder) -> np.ndarray:
    values = 2 ** np.arange(bits.shape[-1], dtype=np.int32)
    return along_last(values[::-1] if order == 'big' else values, bits.ndim)
