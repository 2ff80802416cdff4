"""Next-scale quantization (Tian et al. 2024, VAR, arXiv:2404.02905, algorithms 1 and 2).

A residual quantizer whose levels are coarse and fine grids: the rest is averaged down to a grid, quantized by the one
codebook of all scales, interpolated back to the full grid, and subtracted. The codes of all scales, coarse first, are
one sequence. Binary spherical codes are Infinity's (Han et al. 2024, arXiv:2412.04431).
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.base import HIGHEST, Quantized, Quantizer, check_latents
from vqdit.tokenizers.quantizers.combine import Wrapper, nth_key, numbered_metrics
from vqdit.tokenizers.quantizers.estimators import Estimator, StraightThrough
from vqdit.tokenizers.quantizers.resize import area, cubic


class MultiScale(Wrapper, nn.Module):
    """Latents [B, *grids[-1], D] as codes [B, sum of the sizes of grids, levels].

    Attributes:
        quantizer: of every scale.
        grids: coarse first; the last is that of the latents.
        mixers: convolutions of kernel 3 that are mixed by half into what was interpolated, shared by neighbouring
            scales; VAR has 4.
        estimator: around all scales.

    Raises UserError for no grids, grids of different ranks, and a quantizer that several of them cannot share.
    """

    quantizer: Quantizer
    grids: tuple[tuple[int, ...], ...]
    mixers: int = 0
    estimator: Estimator = StraightThrough()

    def __post_init__(self):
        if len({len(grid) for grid in self.grids}) != 1:
            raise UserError(f'grids {self.grids} must name at least one grid, all of one rank')
        if len(self.grids) > 1:
            self.quantizer.check_scales()
        super().__post_init__()

    @property
    def dimension(self) -> int:
        return self.quantizer.dimension

    @property
    def lengths(self) -> tuple[int, ...]:
        """Codes of each scale."""
        return tuple(math.prod(grid) for grid in self.grids)

    def token_grid(self, grid: Sequence[int]) -> tuple[int, ...]:
        """One axis. Raises UserError when `grid` is not the last of `grids`."""
        if tuple(grid) != tuple(self.grids[-1]):
            raise UserError(f'the latents lie on a grid of {tuple(grid)}, but the last of grids is {self.grids[-1]}')
        return (sum(self.lengths),)

    def setup(self):
        kernel = (3,) * len(self.grids[-1])
        self.convolutions = [nn.Conv(self.dimension, kernel, precision=HIGHEST) for _ in range(self.mixers)]

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        z = check_latents(z, self.dimension, mask, train)
        self.token_grid(z.shape[1:-1])
        residual, total, outs = z, jnp.zeros_like(z), []
        for scale, grid in enumerate(self.grids):
            pooled, seen = _pooled(residual, mask, grid)
            out = self.quantizer(pooled, train=train, mask=seen, key=nth_key(key, scale))
            grown = self._grown(out.vectors, scale)
            residual, total = residual - jax.lax.stop_gradient(grown), total + grown
            outs.append(out)
        codes = [out.codes.reshape(z.shape[0], length, self.levels) for out, length in zip(outs, self.lengths)]
        estimator = self.estimator if train else StraightThrough()
        loss = jnp.mean(jnp.stack([out.loss for out in outs]))
        return Quantized(estimator(z, total, nth_key(key, len(outs))), jnp.concatenate(codes, axis=1), loss,
                         numbered_metrics(outs))

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Vectors fp32 [B, *grids[-1], D] of codes int32 [B, n, levels] of all scales, or of the first ones."""
        total, start = jnp.zeros((codes.shape[0], *self.grids[-1], self.dimension)), 0
        for scale, (grid, length) in enumerate(zip(self.grids, self.lengths)):
            if start < codes.shape[1]:
                part = codes[:, start:start + length].reshape(codes.shape[0], *grid, self.levels)
                total = total + self._grown(self.quantizer.lookup(part), scale)
            start += length
        return total

    def _grown(self, vectors: jax.Array, scale: int) -> jax.Array:
        grown = cubic(vectors, self.grids[-1])
        if not self.mixers:
            return grown
        return (grown + self.convolutions[self._mixer(scale)](grown)) / 2

    def _mixer(self, scale: int) -> int:
        """The convolution whose place between the first scale and the last is nearest, as VAR spaces them."""
        edge = 1 / (3 if self.mixers == 4 else 2) / self.mixers
        places = np.linspace(edge, 1 - edge, self.mixers)
        return int(np.argmin(np.abs(places - scale / max(len(self.grids) - 1, 1))))


def _pooled(residual: jax.Array, mask: jax.Array | None, grid: Sequence[int]) -> tuple[jax.Array, jax.Array | None]:
    """Averages of the tokens that count, and which of them have any."""
    if mask is None:
        return area(residual, grid), None
    weights = mask[..., None].astype(jnp.float32)
    share = area(weights, grid)
    return area(jnp.where(mask[..., None], residual, 0.0), grid) / jnp.maximum(share, 1e-6), share[..., 0] > 0
