"""Random-projection quantization (Chiu et al. 2022, BEST-RQ, arXiv:2202.01855): codes without any learning.

Standardised latents under a random linear map, and the nearest by cosine of random vectors: targets for masked
prediction that cannot collapse.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.tokenizers.quantizers.base import (
    HIGHEST,
    OneCode,
    Quantized,
    check_latents,
    check_num_codes,
    known_codes,
    usage_metrics,
)
from vqdit.tokenizers.quantizers.metrics import normalise
from vqdit.tokenizers.quantizers.nearest import nearest_code


class RandomProjectionQuantizer(OneCode, nn.Module):
    """`num_codes` directions in `code_dimension` of latents of `dimension`; no gradient passes.

    The vector of a code is its direction mapped back by the transposed map.

    Raises UserError for fewer than 2 codes.
    """

    num_codes: int = 8192
    dimension: int = 80
    code_dimension: int = 16

    def __post_init__(self):
        check_num_codes(self.num_codes)
        super().__post_init__()

    def setup(self):
        def draw(initializer, *shape) -> jax.Array:
            return initializer(self.make_rng('params'), shape, jnp.float32)

        self.map = self.variable('codebook', 'map', draw, nn.initializers.glorot_normal(),
                                 self.dimension, self.code_dimension)
        self.codes = self.variable('codebook', 'codes', draw, nn.initializers.normal(1.0),
                                   self.num_codes, self.code_dimension)

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        z = jax.lax.stop_gradient(check_latents(z, self.dimension, mask, train))
        centred = z - jnp.mean(z, axis=-1, keepdims=True)
        standard = centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
        projected = jnp.matmul(standard, self.map.value, precision=HIGHEST).reshape(-1, self.code_dimension)
        codes = nearest_code(normalise(projected), normalise(self.codes.value)).reshape(z.shape[:-1])
        vectors = self.lookup(codes[..., None])
        codes = known_codes(z, codes)
        return Quantized(vectors, codes[..., None], jnp.zeros(()), usage_metrics(codes, self.num_codes, mask))

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Vectors fp32 [..., dimension] of codes int32 [..., 1]."""
        return jnp.matmul(normalise(self.codes.value)[codes[..., 0]], self.map.value.T, precision=HIGHEST)
