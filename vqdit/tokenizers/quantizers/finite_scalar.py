"""Finite scalar quantization (Mentzer et al. 2023, arXiv:2309.15505): every dimension rounds to a few levels.

Equation (1), with L levels in a dimension: bound(z) = tanh(z + shift) * half - offset, where
half = (L - 1) (1 - eps) / 2, offset = 1/2 for even L and 0 for odd, shift = tan(offset / half);
a code vector is round(bound(z)) / (L // 2), in [-1, 1]. There is nothing to learn and nothing to collapse.
`bounds.py` has the other published forms.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.base import (
    OneCode,
    Quantized,
    along_last,
    check_latents,
    known_codes,
    usage_metrics,
)
from vqdit.tokenizers.quantizers.bounds import Bound, ClippedBound, TangentBound
from vqdit.tokenizers.quantizers.estimators import carry


class FiniteScalarQuantizer(OneCode, nn.Module):
    """Rounds each of `len(scalar_levels)` dimensions to its number of levels; the code is their mixed-radix number.

    Attributes:
        scalar_levels: of each dimension; the first counts fastest.
        bound: which of the published conventions.
        noise: share of the numbers that get uniform noise of one level's width in place of rounding when training
            (arXiv:2411.19842, section 3.2). The codes stay those of rounding.

    Raises UserError for a dimension of fewer than 2 levels, or of 2 in a convention that has no room for them, and
    for more codes than int32 can number.
    """

    scalar_levels: tuple[int, ...] = (8, 5, 5, 5)
    bound: Bound = TangentBound()
    noise: float = 0.0

    def __post_init__(self):
        fewest = self.bound.fewest
        if not self.scalar_levels or min(self.scalar_levels) < fewest:
            raise UserError(f'scalar_levels {self.scalar_levels} must name at least {fewest} levels for every dimension'
                            f' with {self.bound}; 2 need bound="symmetric"')
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
    def radices(self) -> tuple[int, ...]:
        return tuple(self.scalar_levels)

    @property
    def residual_scale(self) -> tuple[float, ...]:
        return tuple(1 / levels for levels in self.scalar_levels)

    def prepare_residual(self, z: jax.Array) -> jax.Array:
        """`z` softly within [-c, c], c = 1 + 1 / (L - 1): as far as the levels and half a step beyond."""
        if not isinstance(self.bound, ClippedBound):
            raise UserError('the levels of a residual quantizer of scalars need bound="clipped"; '
                            'a residual is not squashed again')
        reach = 1 + 1 / (self._along(z.ndim) - 1).astype(np.float32)
        return jnp.tanh(z / reach) * reach

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        z = check_latents(z, self.dimension, mask, train)
        levels = self._along(z.ndim)
        position = self.bound.position(z, levels)
        digits = self.bound.digit(position, levels)
        quantized = self.bound.value(self.bound.rounded(digits, levels), levels)
        vectors = carry(quantized, self.bound.value(position, levels))
        if train and self.noise:
            vectors = self._with_noise(vectors, position, levels, key)
        codes = known_codes(z, jnp.sum(digits * self._basis(z.ndim), axis=-1, dtype=jnp.int32))
        metrics = usage_metrics(codes, self.num_codes, mask)
        return Quantized(vectors, codes[..., None], jnp.zeros((), jnp.float32), metrics)

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Code vectors fp32 [..., dimension] of codes int32 [..., 1]."""
        levels = self._along(codes.ndim)
        digits = codes // self._basis(codes.ndim) % levels
        return self.bound.value(self.bound.rounded(digits, levels), levels)

    def _with_noise(self, vectors: jax.Array, position: jax.Array, levels: np.ndarray,
                    key: jax.Array | None) -> jax.Array:
        if key is None:
            raise UserError('training a FiniteScalarQuantizer with noise needs key=...')
        choice, draw = jax.random.split(key)
        noisy = position + jax.random.uniform(draw, position.shape, minval=-0.5, maxval=0.5)
        chosen = jax.random.bernoulli(choice, self.noise, position.shape)
        return jnp.where(chosen, jnp.clip(self.bound.value(noisy, levels), -1.0, 1.0), vectors)

    def _along(self, rank: int) -> np.ndarray:
        return along_last(np.asarray(self.scalar_levels, np.int32), rank)

    def _basis(self, rank: int) -> np.ndarray:
        return along_last(np.cumprod((1, *self.scalar_levels[:-1]), dtype=np.int32), rank)
