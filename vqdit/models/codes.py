"""Codes into vectors and back, with the structure that the quantizer gave them.

The code of a scalar quantizer is a number of several digits, and codes that share digits stand for similar content.
A table of digits beside the table of codes lets the model learn about codes that it has hardly seen.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.tokenizers.spec import TokenSpec


def digits_of_codes(radices: Sequence[int]) -> np.ndarray:
    """Which digits each code has, one-hot fp32 [K, sum(radices)]; the first digit counts fastest."""
    codes = np.arange(int(np.prod(radices)))
    columns, basis = [], 1
    for radix in radices:
        columns.append(np.eye(radix, dtype=np.float32)[codes // basis % radix])
        basis *= radix
    return np.concatenate(columns, axis=1)


class CodeEmbedding(nn.Module):
    """Codes int32 [B, n], the mask among them, to vectors [B, n, width]."""

    spec: TokenSpec
    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, codes: jax.Array) -> jax.Array:
        # One row more than there are codes: the mask.
        table = self.param('embedding', nn.initializers.normal(0.5), (self.spec.num_codes + 1, self.width))
        if self.spec.radices:
            digits = self.param('digits', nn.initializers.normal(0.5), (sum(self.spec.radices), self.width))
            table = table.at[:-1].add(jnp.asarray(digits_of_codes(self.spec.radices)) @ digits)
        return table.astype(self.dtype)[codes]


class CodeHead(nn.Module):
    """Vectors [B, m, D] to logits [B, m, count, K] of `count` codes each."""

    spec: TokenSpec
    count: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def dense(size: int, name: str) -> nn.Module:
            return nn.DenseGeneral((self.count, size), kernel_init=nn.initializers.zeros, dtype=self.dtype, name=name)
        logits = dense(self.spec.num_codes, 'codes')(x)
        if self.spec.radices:
            digits = dense(sum(self.spec.radices), 'digits')(x)
            logits = logits + digits @ jnp.asarray(digits_of_codes(self.spec.radices).T, self.dtype)
        return logits
