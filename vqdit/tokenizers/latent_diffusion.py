"""The convolutional autoencoders of taming-transformers and latent diffusion, for weights that others published.

VQGAN (Esser et al. 2021, arXiv:2012.09841) and LDM (Rombach et al. 2022, arXiv:2112.10752) share one encoder and one
decoder of residual blocks, with attention at some resolutions. Between them stands a codebook, or a Gaussian whose
mean is the latent. Images are [B, H, W, C] in [-1, 1]. Modules carry the names that diffusers gave them.
"""

from collections.abc import Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.tokenizers.quantizers.metrics import Euclidean, Metric
from vqdit.tokenizers.quantizers.nearest import nearest_code


def _conv(width: int, name: str) -> nn.Module:
    return nn.Conv(width, (3, 3), name=name)


def _norm(groups: int, name: str) -> nn.Module:
    return nn.GroupNorm(groups, epsilon=1e-6, use_fast_variance=False, name=name)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 convolution of x where the width changes."""

    width: int
    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = _conv(self.width, 'conv1')(nn.silu(_norm(self.groups, 'norm1')(x)))
        hidden = _conv(self.width, 'conv2')(nn.silu(_norm(self.groups, 'norm2')(hidden)))
        if x.shape[-1] != self.width:
            x = nn.Conv(self.width, (1, 1), name='conv_shortcut')(x)
        return x + hidden


class SpatialAttention(nn.Module):
    """x + attention of one head over all positions of norm(x); [B, H, W, C] -> [B, H, W, C]."""

    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        flat = _norm(self.groups, 'group_norm')(x).reshape(x.shape[0], -1, 1, x.shape[-1])
        query, key, value = (nn.Dense(x.shape[-1], name=f'to_{part}')(flat) for part in 'qkv')
        mixed = jax.nn.dot_product_attention(query, key, value)
        return x + nn.Dense(x.shape[-1], name='to_out.0')(mixed).reshape(x.shape)


class Resolution(nn.Module):
    """Residual blocks of one width, each with attention after it or not, then a change of the resolution or none.

    Halving is a convolution of stride 2, padded on the right and below alone; doubling repeats neighbours before a
    convolution.
    """

    width: int
    blocks: int
    groups: int
    attention: bool = False
    change: str = ''

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for index in range(self.blocks):
            x = ResidualBlock(self.width, self.groups, name=f'resnets.{index}')(x)
            if self.attention:
                x = SpatialAttention(self.groups, name=f'attentions.{index}')(x)
        if self.change == 'halve':
            x = nn.Conv(self.width, (3, 3), 2, padding=((0, 1), (0, 1)), name='downsamplers.0.conv')(x)
        if self.change == 'double':
            x = _conv(self.width, 'upsamplers.0.conv')(x.repeat(2, axis=1).repeat(2, axis=2))
        return x


class Middle(nn.Module):
    """Attention between two residual blocks, at the lowest resolution."""

    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = ResidualBlock(x.shape[-1], self.groups, name='resnets.0')(x)
        x = SpatialAttention(self.groups, name='attentions.0')(x)
        return ResidualBlock(x.shape[-1], self.groups, name='resnets.1')(x)


class Encoder(nn.Module):
    """[B, H, W, C] -> [B, H / f, W / f, outputs], where f doubles with every width after the first."""

    widths: Sequence[int]
    blocks: int
    attention: Sequence[bool]
    groups: int
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = _conv(self.widths[0], 'conv_in')(x)
        last = len(self.widths) - 1
        for stage, (width, attention) in enumerate(zip(self.widths, self.attention, strict=True)):
            change = '' if stage == last else 'halve'
            x = Resolution(width, self.blocks, self.groups, attention, change, name=f'down_blocks.{stage}')(x)
        x = Middle(self.groups, name='mid_block')(x)
        return _conv(self.outputs, 'conv_out')(nn.silu(_norm(self.groups, 'conv_norm_out')(x)))


class Decoder(nn.Module):
    """The way back, with one block more at every resolution; `widths` and `attention` in the encoder's order."""

    widths: Sequence[int]
    blocks: int
    attention: Sequence[bool]
    groups: int
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Middle(self.groups, name='mid_block')(_conv(self.widths[-1], 'conv_in')(x))
        last = len(self.widths) - 1
        for stage, (width, attention) in enumerate(zip(self.widths[::-1], self.attention[::-1], strict=True)):
            change = '' if stage == last else 'double'
            x = Resolution(width, self.blocks + 1, self.groups, attention, change, name=f'up_blocks.{stage}')(x)
        return _conv(self.outputs, 'conv_out')(nn.silu(_norm(self.groups, 'conv_norm_out')(x)))


class GaussianAutoencoder(nn.Module):
    """LDM's autoencoder with a Gaussian between encoder and decoder (KL); latents [B, h, w, latent_channels].

    Attributes:
        widths: channels at each resolution; every further one halves both sides.
        blocks: residual blocks at each resolution of the encoder.
        attention: whether each resolution has attention too.
        groups: of the normalisation.
        channels, latent_channels: of images and latents.
        scale: what latents are multiplied by, so that they have about unit variance.
    """

    widths: Sequence[int] = (128, 256, 512, 512)
    blocks: int = 2
    attention: Sequence[bool] = (False, False, False, False)
    groups: int = 32
    channels: int = 3
    latent_channels: int = 4
    scale: float = 0.18215

    def setup(self):
        trunk = self.widths, self.blocks, self.attention, self.groups
        self.encoder = Encoder(*trunk, 2 * self.latent_channels)
        self.quant_conv = nn.Conv(2 * self.latent_channels, (1, 1))
        self.post_quant_conv = nn.Conv(self.latent_channels, (1, 1))
        self.decoder = Decoder(*trunk, self.channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images [B, H, W, C] through their mean latents and back."""
        return self.decode(self.encode(x))

    def moments(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and logarithm of the variance of the latents, before scaling."""
        chex.assert_shape(x, (None, None, None, self.channels))
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(x)), 2, axis=-1)
        return mean, jnp.clip(log_variance, -30.0, 20.0)

    def encode(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Scaled latents of images: drawn where a key is given, else their mean."""
        latents, log_variance = self.moments(x)
        if key is not None:
            latents = latents + jnp.exp(0.5 * log_variance) * jax.random.normal(key, latents.shape)
        return latents * self.scale

    def decode(self, latents: jax.Array) -> jax.Array:
        """Images of scaled latents."""
        return self.decoder(self.post_quant_conv(latents / self.scale))


class Codebook(nn.Module):
    """The vectors [K, D] of the codes."""

    num_codes: int
    dimension: int

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param('embedding', nn.initializers.normal(1.0), (self.num_codes, self.dimension))


class CodebookAutoencoder(nn.Module):
    """VQGAN: images [B, H, W, C] <-> codes int32 [B, h, w, 1].

    Attributes are those of `GaussianAutoencoder`, and:
        num_codes, dimension: K codes and the dimension of their vectors.
        values_of: the metric whose `values` of the vectors are decoded.
    """

    widths: Sequence[int] = (128, 128, 256, 256, 512)
    blocks: int = 2
    attention: Sequence[bool] = (False, False, False, False, True)
    groups: int = 32
    channels: int = 3
    latent_channels: int = 256
    num_codes: int = 1024
    dimension: int = 256
    values_of: Metric = Euclidean()

    def setup(self):
        trunk = self.widths, self.blocks, self.attention, self.groups
        self.encoder = Encoder(*trunk, self.latent_channels)
        self.quant_conv = nn.Conv(self.dimension, (1, 1))
        self.quantize = Codebook(self.num_codes, self.dimension)
        self.post_quant_conv = nn.Conv(self.latent_channels, (1, 1))
        self.decoder = Decoder(*trunk, self.channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images through their codes and back."""
        return self.decode(self.encode(x))

    def latents(self, x: jax.Array) -> jax.Array:
        """Latents [B, h, w, dimension] before the codebook."""
        chex.assert_shape(x, (None, None, None, self.channels))
        return self.quant_conv(self.encoder(x))

    def encode(self, x: jax.Array) -> jax.Array:
        """The codes whose vectors are nearest to the latents of images."""
        latents = self.latents(x)
        return nearest_code(latents.reshape(-1, self.dimension), self.quantize()).reshape(*latents.shape[:-1], 1)

    def decode(self, codes: jax.Array) -> jax.Array:
        """Images of codes."""
        chex.assert_axis_dimension(codes, -1, 1)
        vectors = self.values_of.values(jnp.take(self.quantize(), codes[..., 0], axis=0))
        return self.decoder(self.post_quant_conv(vectors))
