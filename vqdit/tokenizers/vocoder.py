"""A codec of sound that listens to its log-mel spectrogram and speaks through an inverse Fourier transform.

    sound -> log-mel [B, frames, bands] -> blocks -> latents [B, frames / stride, D]
    vectors -> blocks -> magnitudes and phases [B, frames, bins] -> inverse short-time Fourier transform -> sound

All layers work at the rate of the frames, and none samples up (Vocos, arXiv:2306.00814).
"""

from collections.abc import Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.errors import UserError
from vqdit.folding import depth_to_space, space_to_depth
from vqdit.tokenizers.padding import grid_of
from vqdit.tokenizers.spectrogram import LogMel

QUIET = -6.0
"""Where the logarithms of magnitudes start: a small fraction of full scale."""
LOUDEST = 2.0
"""The logarithm that no magnitude exceeds; full scale is 0."""


class FrameBlock(nn.Module):
    """x + scale mlp(norm(conv(x))), the convolution of kernel 7 within each channel (ConvNeXt, arXiv:2201.03545)."""

    expansion: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        hidden = nn.Conv(width, (7,), feature_group_count=width)(x)
        hidden = nn.gelu(nn.Dense(self.expansion * width)(nn.LayerNorm()(hidden)))
        scale = self.param('scale', nn.initializers.constant(0.1), (width,))
        return x + scale[None, None] * nn.Dense(width)(hidden)


class MelEncoder(nn.Module):
    """Sound [B, samples, 1] -> latents [B, frames / stride, dimension].

    Attributes:
        mel: the spectrogram, whose frames are a multiple of `stride`.
        stride: frames that make a token.
        width: channels.
        blocks: how many.
        dimension: of the latents.

    Raises UserError when a token would have part of a frame.
    """

    mel: LogMel
    stride: int
    width: int
    blocks: int
    dimension: int

    def __post_init__(self):
        if self.mel.size[0] % self.stride:
            raise UserError(f'{self.mel.size[0]} frames are no multiple of stride={self.stride}; change either')
        super().__post_init__()

    @nn.nowrap
    def grid(self, size: Sequence[int]) -> tuple[int, ...]:
        return grid_of(size, (self.mel.hop * self.stride,))

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        chex.assert_axis_dimension(x, -1, 1)
        x = nn.Conv(self.width, (7,))(self.mel.analyse(x[..., 0]))
        for _ in range(self.blocks):
            x = FrameBlock()(x)
        return nn.Dense(self.dimension)(nn.LayerNorm()(space_to_depth(x, (self.stride,))))


class FourierDecoder(nn.Module):
    """Code vectors [B, frames / stride, D] -> sound [B, samples, 1]; attributes are those of `MelEncoder`."""

    mel: LogMel
    stride: int
    width: int
    blocks: int

    @nn.compact
    def __call__(self, vectors: jax.Array) -> jax.Array:
        x = depth_to_space(nn.Dense(self.stride * self.width)(vectors), (self.stride,))
        x = nn.Conv(self.width, (7,))(x)
        for _ in range(self.blocks):
            x = FrameBlock()(x)
        return self.mel.sound(FourierHead(self.mel.window_length // 2 + 1)(nn.LayerNorm()(x)))[..., None]


class FourierHead(nn.Module):
    """[B, frames, width] -> spectrum complex64 [B, frames, bins]: exp(m) (cos p + i sin p) of linear m and p.

    Every p stands for a phase, so that it need not be wrapped.
    """

    bins: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        logarithms = nn.Dense(self.bins, bias_init=nn.initializers.constant(QUIET), name='magnitude')(x)
        phases = nn.Dense(self.bins, name='phase')(x)
        magnitudes = jnp.exp(jnp.minimum(logarithms, LOUDEST))
        return jax.lax.complex(magnitudes * jnp.cos(phases), magnitudes * jnp.sin(phases))
