"""A codec of two modules: any encoder and any decoder around any quantizer."""

from collections.abc import Sequence
from typing import Protocol

import flax.linen as nn
import jax

from vqdit.tokenizers.autoencoder import Reconstruction, Standardise
from vqdit.tokenizers.padding import crop
from vqdit.tokenizers.quantizers.base import Quantized, Quantizer
from vqdit.tokenizers.quantizers.combine import Wrapper


class EncodesGrid(Protocol):
    """An encoder: data [B, *size, C] -> latents [B, *grid(size), dimension]."""

    def grid(self, size: Sequence[int]) -> tuple[int, ...]: ...

    def __call__(self, x: jax.Array) -> jax.Array: ...


class EncoderDecoder(nn.Module):
    """Data [B, *size, C] <-> codes int32 [B, *grid, levels].

    Attributes:
        quantizer: any module of `vqdit.tokenizers.quantizers`, as wide as the latents.
        encoder: data to latents; it tells the grid of the latents.
        decoder: code vectors [B, *grid, dimension] to data of at least the size.
    """

    quantizer: Quantizer
    encoder: EncodesGrid
    decoder: nn.Module

    @nn.nowrap
    def grid(self, size: Sequence[int]) -> tuple[int, ...]:
        """The grid of the latents of data of `size`. Raises UserError for data of another rank."""
        return self.encoder.grid(size)

    def __call__(self, x: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> Reconstruction:
        quantized = self.quantizer(self.encoder(x), train=train, key=key)
        return Reconstruction(crop(self.decoder(quantized.vectors), x.shape[1:-1]), quantized)

    def encode(self, x: jax.Array) -> jax.Array:
        """Codes int32 [B, *grid, levels] of data [B, *size, C]."""
        return self.quantizer(self.encoder(x)).codes

    def decode(self, codes: jax.Array) -> jax.Array:
        """Data of codes int32 [B, *grid, levels], of the first levels alone if some are missing."""
        return self.decoder(self.lookup(codes))

    def latents(self, x: jax.Array) -> jax.Array:
        """What is quantised, [B, *grid, dimension], of data [B, *size, C]."""
        return self.encoder(x)

    def reconstruct(self, latents: jax.Array) -> jax.Array:
        """Data of latents, which are quantised first."""
        return self.decoder(self.quantizer(latents).vectors)

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Code vectors [..., dimension] of codes int32 [..., levels]."""
        return self.quantizer.lookup(codes)


class Standardised(Wrapper, nn.Module):
    """A quantizer of latents that are brought to zero mean and unit variance first; see `Standardise`."""

    quantizer: Quantizer

    @property
    def dimension(self) -> int:
        return self.quantizer.dimension

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        return self.quantizer(Standardise()(z, train), train=train, mask=mask, key=key)

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Vectors fp32 [..., dimension] of codes int32 [..., levels]."""
        return self.quantizer.lookup(codes)
