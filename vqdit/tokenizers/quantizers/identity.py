"""No quantization at all: the upper bound of what a quantizer can reach."""

import math
from typing import NoReturn

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.base import Flat, Quantized, check_latents


class Continuous(Flat):
    """What bottlenecks without codes share: codes int32 [..., 0]."""

    num_codes = 0
    levels = 0
    radices = ()
    bits_per_token = math.inf

    def no_codes(self, z: jax.Array) -> jax.Array:
        return jnp.zeros((*z.shape[:-1], 0), jnp.int32)

    def lookup(self, codes: jax.Array) -> NoReturn:
        """Raises UserError: there are no codes."""
        raise UserError(f'{type(self).__name__} has continuous latents and no codes; '
                        'a model of tokens needs another quantizer, such as finite_scalar')


class Identity(Continuous, nn.Module):
    """Latents of `dimension` as they are."""

    dimension: int = 8

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        z = check_latents(z, self.dimension, mask, train)
        return Quantized(z, self.no_codes(z), jnp.zeros((), jnp.float32), {})
