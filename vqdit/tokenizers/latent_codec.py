"""The networks of `latent_diffusion` as the two sides of a codec that is trained here, around any quantizer.

    published             | widths, in 128s | attention | latent_channels | codes
    VQGAN f16             | 1 1 2 2 4       | last      | 256             | 1,024 or 16,384 of 256 (arXiv:2012.09841)
    latent diffusion f4   | 1 2 4           | none      | 3               | 8,192 of 3 (arXiv:2112.10752)
    latent diffusion f8   | 1 2 2 4         | last      | 4               | 16,384 of 4
    latent diffusion f16  | 1 1 2 2 4       | last      | 8               | 16,384 of 8
    Stable Diffusion f8   | 1 2 4 4         | none      | 4               | none: a Gaussian
    LlamaGen f16, f8      | 1 1 2 2 4, 1 2 2 4 | last   | 256             | 16,384 of 8, cosine (arXiv:2406.06525)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import chex
import flax.linen as nn
import jax

from vqdit.errors import UserError
from vqdit.tokenizers.latent_diffusion import Decoder, Encoder
from vqdit.tokenizers.padding import complete, grid_of
from vqdit.tokenizers.ranges import Range, unbounded


@dataclass(frozen=True)
class LatentTrunk:
    """What encoder and decoder share.

    Attributes:
        widths: channels at each resolution; every further one halves both sides.
        attention: whether each resolution has attention too; the middle always does.
        latent_channels: of the convolutions next to the code vectors.
        blocks: residual blocks at each resolution of the encoder; the decoder has one more.
        groups: of the normalisation.

    Raises UserError for lists of different lengths and widths that the groups cannot share.
    """

    widths: tuple[int, ...]
    attention: tuple[bool, ...]
    latent_channels: int
    blocks: int = 2
    groups: int = 32

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.attention):
            raise UserError(f'attention={self.attention} must say yes or no for each of widths={self.widths}')
        if any(width % self.groups for width in self.widths):
            raise UserError(f'widths={self.widths} must be multiples of groups={self.groups}')

    @property
    def strides(self) -> tuple[int, int]:
        """Pixels that make a token, along either side."""
        return (2 ** (len(self.widths) - 1),) * 2


class LatentEncoder(nn.Module):
    """Images [B, H, W, C] -> latents [B, h, w, dimension]; the last rows and columns are repeated to whole strides."""

    trunk: LatentTrunk
    dimension: int

    @nn.nowrap
    def grid(self, size: Sequence[int]) -> tuple[int, ...]:
        return grid_of(size, self.trunk.strides)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        trunk = self.trunk
        chex.assert_rank(x, 4)
        network = Encoder(trunk.widths, trunk.blocks, trunk.attention, trunk.groups, trunk.latent_channels,
                          name='network')
        return nn.Conv(self.dimension, (1, 1), name='quant_conv')(network(complete(x, trunk.strides)))


class LatentDecoder(nn.Module):
    """Code vectors [B, h, w, D] -> images [B, H, W, channels], of whole strides.

    Attributes:
        trunk: what is shared with the encoder.
        channels: of the images.
        bound: what is done to the images at last; see `ranges`.
    """

    trunk: LatentTrunk
    channels: int
    bound: Range = unbounded

    @nn.compact
    def __call__(self, vectors: jax.Array) -> jax.Array:
        trunk = self.trunk
        network = Decoder(trunk.widths, trunk.blocks, trunk.attention, trunk.groups, self.channels, name='network')
        return self.bound(network(nn.Conv(trunk.latent_channels, (1, 1), name='post_quant_conv')(vectors)))
