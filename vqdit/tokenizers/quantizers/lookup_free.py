"""Lookup-free quantization (Yu et al. 2023, MAGVIT-v2, arXiv:2310.05737): a code is the signs of the latent.

The entropy loss, weight (H(token) - diversity H(batch)), makes every token sure of its code and the tokens together use
all codes. The distribution of a token over codes c is softmax(-|z - c|^2 / temperature).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.base import (
    OneCode,
    Quantized,
    check_latents,
    known_codes,
    mean_square,
    token_weights,
    usage_metrics,
    weighted_mean,
)
from vqdit.tokenizers.quantizers.bits import BitOrder, batch_entropy, pack_bits, token_entropy, unpack_bits
from vqdit.tokenizers.quantizers.estimators import Estimator, StraightThrough
from vqdit.tokenizers.quantizers.schedule import Schedule, Scheduled


class LookupFreeQuantizer(OneCode, nn.Module):
    """2^`bits` codes: `bits` dimensions, each -1 or 1; zero is -1.

    Attributes:
        entropy: weight of the entropy loss, or a function of the training steps taken (MaskBit, arXiv:2409.16211,
            starts at three times its final weight).
        diversity: weight of the batch's entropy against the tokens'.
        temperature: of the distribution of a token over the codes.
        entropy_group: bits whose joint distribution enters the batch's entropy; all of them by default, which is exact.
        commitment: weight of the mean square of latent less code.
        bit_order: "big", the first dimension is the most significant bit, or "little".

    Raises UserError for fewer than 1 bit, more than int32 holds, or an entropy whose table would not fit.
    """

    bits: int = 10
    entropy: Schedule = 0.1
    diversity: float = 1.0
    temperature: float = 0.01
    entropy_group: int | None = None
    commitment: float = 0.25
    bit_order: BitOrder = 'big'
    estimator: Estimator = StraightThrough()

    def __post_init__(self):
        if not 1 <= self.bits <= 30:
            raise UserError(f'bits is {self.bits}; int32 codes hold 1 to 30, and Grouped() makes more codes')
        if self.bit_order not in ('big', 'little'):
            raise UserError(f'bit_order "{self.bit_order}" is unknown; choose "big" or "little"')
        if not 1 <= (self.entropy_group or self.bits) <= 20:
            raise UserError(f'the entropy of {self.entropy_group or self.bits} bits together takes too much memory; '
                            'set entropy_group to 1 .. 20')
        super().__post_init__()

    @property
    def dimension(self) -> int:
        return self.bits

    @property
    def num_codes(self) -> int:
        return 2**self.bits

    @property
    def radices(self) -> tuple[int, ...]:
        return (2,) * self.bits

    @property
    def residual_scale(self) -> float:
        return 0.5

    @property
    def size(self) -> float:
        """Of every coordinate of a code."""
        return 1.0

    def confine(self, z: jax.Array) -> jax.Array:
        """Latents where the codes are."""
        return z

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        z = self.confine(check_latents(z, self.bits, mask, train))
        positive = z > 0
        quantized = jnp.where(positive, self.size, -self.size)
        codes = known_codes(z, pack_bits(positive, self.bit_order))
        weights = token_weights(codes.shape, mask)
        loss, metrics = self._losses(z, quantized, weights, train)
        metrics |= usage_metrics(codes, self.num_codes, mask) | self._bit_metrics(positive, weights)
        vectors = (self.estimator if train else StraightThrough())(z, quantized, key)
        return Quantized(vectors, codes[..., None], loss, metrics)

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Code vectors fp32 [..., bits] of codes int32 [..., 1]."""
        return jnp.where(unpack_bits(codes[..., 0], self.bits, self.bit_order), self.size, -self.size)

    def _losses(self, z: jax.Array, quantized: jax.Array, weights: jax.Array,
                train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        # |z - c|^2 differs by 4 z_i size between the two values of bit i.
        logits = (4 * self.size / self.temperature * z).reshape(-1, self.bits)
        token = token_entropy(logits, weights)
        batch = batch_entropy(logits, weights, self.entropy_group or self.bits)
        weight = Scheduled(self.entropy, name='entropy_weight')(train)
        loss = weight * (token - self.diversity * batch) + self.commitment * mean_square(z, quantized, weights)
        return loss, {'token_entropy': token, 'batch_entropy': batch}

    def _bit_metrics(self, positive: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
        """How many bits are the same in every token, where a codebook would have half of its codes dead."""
        flat = positive.reshape(-1, self.bits)
        share = jax.vmap(weighted_mean, (1, None))(flat.astype(jnp.float32), weights)
        return {'dead_bits': jnp.sum((share == 0) | (share == 1), dtype=jnp.float32)}
