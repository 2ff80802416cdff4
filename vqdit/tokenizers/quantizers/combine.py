"""Small combinators: a quantizer in another space, or several codes a vector. Each takes any quantizer."""

import itertools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.base import HIGHEST, Flat, Quantized, Quantizer, check_latents


class Wrapper(Flat):
    """What quantizers around one other quantizer share."""

    quantizer: Quantizer

    @property
    def num_codes(self) -> int:
        return self.quantizer.num_codes

    @property
    def levels(self) -> int:
        return self.quantizer.levels

    @property
    def radices(self) -> tuple[int, ...]:
        return self.quantizer.radices

    @property
    def bits_per_token(self) -> float:
        return self.quantizer.bits_per_token

    def check_scales(self) -> None:
        self.quantizer.check_scales()

    def token_grid(self, grid: Sequence[int]) -> tuple[int, ...]:
        return self.quantizer.token_grid(grid)


class Projected(Wrapper, nn.Module):
    """A quantizer of its own dimension between linear maps from and to latents of `dimension`, in fp32."""

    quantizer: Quantizer
    dimension: int

    def setup(self):
        self.project_in = nn.Dense(self.quantizer.dimension, precision=HIGHEST)
        self.project_out = nn.Dense(self.dimension, precision=HIGHEST)

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        z = check_latents(z, self.dimension, mask, train)
        out = self.quantizer(self.project_in(z), train=train, mask=mask, key=key)
        return out._replace(vectors=self.project_out(out.vectors))

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Vectors fp32 [..., dimension] of codes int32 [..., levels]."""
        return self.project_out(self.quantizer.lookup(codes))


class MultiHead(Wrapper, nn.Module):
    """Latents in `heads` equal parts, each quantized by the same quantizer; codes [..., heads * levels]."""

    quantizer: Quantizer
    heads: int

    @property
    def dimension(self) -> int:
        return self.heads * self.quantizer.dimension

    @property
    def levels(self) -> int:
        return self.heads * self.quantizer.levels

    @property
    def bits_per_token(self) -> float:
        return self.heads * self.quantizer.bits_per_token

    @property
    def residual_scale(self) -> tuple[float, ...]:
        return self.heads * scale_of_each(self.quantizer)

    def prepare_residual(self, z: jax.Array) -> jax.Array:
        """Every part within the reach of the quantizer, with its errors."""
        return self.quantizer.prepare_residual(z.reshape(*z.shape[:-1], self.heads, -1)).reshape(z.shape)

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        z = check_latents(z, self.dimension, mask, train)
        parts = z.reshape(*z.shape[:-1], self.heads, -1)
        if mask is not None:
            mask = jnp.broadcast_to(mask[..., None], parts.shape[:-1])
        out = self.quantizer(parts, train=train, mask=mask, key=key)
        codes = out.codes.reshape(*z.shape[:-1], self.levels)
        return out._replace(vectors=out.vectors.reshape(*z.shape[:-1], -1), codes=codes)

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Vectors fp32 [..., dimension] of codes int32 [..., heads * levels]."""
        vectors = self.quantizer.lookup(codes.reshape(*codes.shape[:-1], self.heads, -1))
        return vectors.reshape(*codes.shape[:-1], -1)


class Several(Flat):
    """What quantizers around a tuple of quantizers share. Their levels follow one another."""

    quantizers: tuple[Quantizer, ...]

    def check_not_empty(self) -> None:
        if not self.quantizers:
            raise UserError(f'{type(self).__name__} needs at least one quantizer')

    @property
    def num_codes(self) -> int:
        """The most of any level."""
        return max(quantizer.num_codes for quantizer in self.quantizers)

    @property
    def levels(self) -> int:
        return sum(quantizer.levels for quantizer in self.quantizers)

    @property
    def radices(self) -> tuple[int, ...]:
        """Those of the levels, if they agree."""
        different = {quantizer.radices for quantizer in self.quantizers}
        return different.pop() if len(different) == 1 else ()

    @property
    def bits_per_token(self) -> float:
        return math.fsum(quantizer.bits_per_token for quantizer in self.quantizers)

    def check_scales(self) -> None:
        for quantizer in self.quantizers:
            quantizer.check_scales()

    def token_grid(self, grid: Sequence[int]) -> tuple[int, ...]:
        return self.quantizers[0].token_grid(grid)

    def split_codes(self, codes: jax.Array) -> list[jax.Array]:
        """Codes [..., levels] of each quantizer; where levels at the end are missing, of those that have any."""
        parts, start = [], 0
        for quantizer in self.quantizers:
            if start < codes.shape[-1]:
                parts.append(codes[..., start:start + quantizer.levels])
            start += quantizer.levels
        return parts


class Grouped(Several, nn.Module):
    """Latents in parts, each with a quantizer of its own; codes [..., sum of levels], the loss the mean of the parts'.

    The parts are as wide as their quantizers.
    """

    quantizers: tuple[Quantizer, ...]

    def __post_init__(self):
        self.check_not_empty()
        super().__post_init__()

    @property
    def dimension(self) -> int:
        return sum(quantizer.dimension for quantizer in self.quantizers)

    @property
    def residual_scale(self) -> tuple[float, ...]:
        return tuple(scale for quantizer in self.quantizers for scale in scale_of_each(quantizer))

    def prepare_residual(self, z: jax.Array) -> jax.Array:
        """Every part within the reach of its quantizer, with its errors."""
        parts = zip(self.quantizers, self._split(z))
        return jnp.concatenate([quantizer.prepare_residual(part) for quantizer, part in parts], axis=-1)

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        z = check_latents(z, self.dimension, mask, train)
        outs = [quantizer(part, train=train, mask=mask, key=nth_key(key, number))
                for number, (quantizer, part) in enumerate(zip(self.quantizers, self._split(z)))]
        return Quantized(jnp.concatenate([out.vectors for out in outs], axis=-1),
                         jnp.concatenate([out.codes for out in outs], axis=-1),
                         jnp.mean(jnp.stack([out.loss for out in outs])), numbered_metrics(outs))

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Vectors fp32 [..., dimension] of codes int32 [..., levels]."""
        parts = zip(self.quantizers, self.split_codes(codes))
        return jnp.concatenate([quantizer.lookup(part) for quantizer, part in parts], axis=-1)

    def _split(self, z: jax.Array) -> list[jax.Array]:
        ends = list(itertools.accumulate(quantizer.dimension for quantizer in self.quantizers))
        return jnp.split(z, ends[:-1], axis=-1)


def scale_of_each(quantizer: Quantizer) -> tuple[float, ...]:
    """The `residual_scale` of every dimension."""
    scale = quantizer.residual_scale
    return scale if isinstance(scale, tuple) else (scale,) * quantizer.dimension


def nth_key(key: jax.Array | None, number: int) -> jax.Array | None:
    """A key for each of several quantizers."""
    return None if key is None else jax.random.fold_in(key, number)


def numbered_metrics(outs: Sequence[Quantized]) -> dict[str, jax.Array]:
    """`name_0`, `name_1`, ... of every metric, and its mean as `name`."""
    names = dict.fromkeys(name for out in outs for name in out.metrics)
    numbered = {f'{name}_{i}': out.metrics[name] for name in names for i, out in enumerate(outs) if name in out.metrics}
    means = {name: jnp.mean(jnp.stack([out.metrics[name] for out in outs if name in out.metrics])) for name in names}
    return means | numbered
