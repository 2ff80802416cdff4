"""A trained quantizer with the codes that data uses, renumbered without gaps.

Codes that no token has cost a model of tokens an output each and teach it nothing (taming-transformers calls this
`remap`). The map is state, beside that of the quantizer, and so travels with every checkpoint.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.base import NO_CODE, OneCode, Quantized, Quantizer, check_num_codes
from vqdit.tokenizers.quantizers.estimators import carry
from vqdit.tokenizers.quantizers.nearest import nearest_code


class Remapped(OneCode, nn.Module):
    """`num_codes` of the codes of a quantizer of one level; a token whose code is none of them gets the nearest.

    `kept int32 [num_codes]` in the `codebook` collection are the quantizer's own numbers of the codes, at first the
    lowest ones; the quantizer's variables stay where they are without this.

    Raises UserError for a quantizer of several levels and for more codes than it has.
    """

    quantizer: Quantizer
    num_codes: int

    def __post_init__(self):
        check_num_codes(self.num_codes)
        if self.quantizer.levels != 1 or self.num_codes > self.quantizer.num_codes:
            raise UserError(f'{self.num_codes} codes cannot be kept of a quantizer with {self.quantizer.levels} levels '
                            f'of {self.quantizer.num_codes} codes')
        super().__post_init__()

    @property
    def dimension(self) -> int:
        return self.quantizer.dimension

    def setup(self):
        nn.share_scope(self, self.quantizer)
        self.kept = self.variable('codebook', 'kept', jnp.arange, self.num_codes, dtype=jnp.int32)

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        out = self.quantizer(z, train=train, mask=mask, key=key)
        known = out.codes != NO_CODE
        codes = jnp.where(known, self._numbers()[jnp.maximum(out.codes, 0)], NO_CODE)
        vectors = jnp.where(known, self.lookup(codes), out.vectors)
        return out._replace(vectors=carry(vectors, out.vectors), codes=codes)

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Code vectors fp32 [..., dimension] of codes int32 [..., 1]."""
        return self.quantizer.lookup(self.kept.value[codes])

    def _numbers(self) -> jax.Array:
        """The number here of each of the quantizer's codes, int32 [K]: its place among the kept, or the nearest's."""
        kept = self.kept.value
        table = self.quantizer.lookup(jnp.arange(self.quantizer.num_codes)[:, None])
        return nearest_code(table, table[kept]).at[kept].set(jnp.arange(self.num_codes, dtype=jnp.int32))


def used_codes(codes: np.ndarray, num_codes: int, least: int = 1) -> np.ndarray:
    """Those of `num_codes` codes that `codes int [...]` has `least` times or more, ascending, int32 [kept]."""
    return np.flatnonzero(np.bincount(codes.reshape(-1), minlength=num_codes) >= least).astype(np.int32)
