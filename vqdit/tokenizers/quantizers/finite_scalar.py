"""Finite scalar quantization (Mentzer et al. 2023, arXiv:2309.15505): every dimension rounds to a few levels.

Equation (1), with L levels in a dimension: bound(z) = tanh(z + shift) * half - offset, where
half = (L - 1) (1 - eps) / 2, offset = 1/2 for even L and 0 for odd, shift = tan(offset / half);
a code vector is round(bound(z)) / (L // 2), in [-1, 1]. There is nothing to learn and nothing to collapse.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.base import Quantized, check_latents, straight_through, usage_metrics


class FiniteScalarQuantizer(nn.Module):
    """Rounds each of `len(scalar_levels)` dimensions to its number of levels; the code is their mixed-radix number.

    Raises UserError for a dimension of fewer than 2 levels, or more codes than int32 can number.
    """

    scalar_levels: tuple[int, ...] = (8, 5, 5, 5)

    def __post_init__(self):
        if not self.scalar_levels or min(self.scalar_levels) < 2:
            raise UserError(f'scalar_levels {self.scalar_levels} must name at least 2 levels for every dimension')
        if math.prod(self.scalar_levels) >= 2**31:
            raise UserError(f'scalar_levels {self.scalar_levels} make more codes than int32 holds; use fewer')
        super().__post_init__()

    @property
    def dimension(self) -> int:
        return len(self.scalar_levels)

    @property
    def num_codes(self) -> int:
        return math.prod(self.scalar_levels)

    @property
    def levels(self) -> int:
        return 1

    @property
    def radices(self) -> tuple[int, ...]:
        return tuple(self.scalar_levels)

    @property
    def bits_per_token(self) -> float:
        return math.log2(self.num_codes)

    def bound(self, z: jax.Array) -> jax.Array:
        """Equation (1), before rounding."""
        levels = np.asarray(self.scalar_levels, np.float32)
        half = (levels - 1) * (1 - 1e-3) / 2
        offset = np.where(levels % 2 == 0, 0.5, 0.0).astype(np.float32)
        lead = (1,) * (z.ndim - 1)
        shift = np.tan(offset / half).reshape(*lead, -1)
        return jnp.tanh(z + shift) * half.reshape(*lead, -1) - offset.reshape(*lead, -1)

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        bounded = self.bound(check_latents(z, self.dimension))
        digits = jnp.round(bounded)
        half_width = self._constants(z.ndim)[1]
        vectors = straight_through(bounded, digits) / half_width
        codes = self._number(digits)
        metrics = usage_metrics(codes[..., 0], self.num_codes, mask)
        return Quantized(vectors, codes, jnp.zeros((), jnp.float32), metrics)

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Code vectors fp32 [..., dimension] of codes int32 [..., 1]."""
        basis, half_width, levels = self._constants(codes.ndim)
        digits = codes // basis % levels
        return (digits - half_width).astype(jnp.float32) / half_width

    def _number(self, digits: jax.Array) -> jax.Array:
        basis, half_width, _ = self._constants(digits.ndim)
        return jnp.sum((digits.astype(jnp.int32) + half_width) * basis, axis=-1, keepdims=True, dtype=jnp.int32)

    def _constants(self, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        levels = np.asarray(self.scalar_levels, np.int32)
        basis = np.concatenate([[1], np.cumprod(levels[:-1])]).astype(np.int32)
        shape = (1,) * (rank - 1) + (-1,)
        return basis.reshape(shape), (levels // 2).reshape(shape), levels.reshape(shape)
