"""One convolutional autoencoder for audio (1-D), images (2-D) and video (3-D), around any quantizer.

    x [B, *size, C] -> patches -> residual blocks, halving -> standardised latents -> quantizer
      -> codes int32 [B, *grid, levels]

The first and last layers fold blocks of `patch` positions into channels, and convolutions in 3-D are factorised into
space and time: on a CPU few wide layers run several times faster than many narrow ones.
"""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.errors import UserError
from vqdit.folding import depth_to_space, space_to_depth
from vqdit.tokenizers.quantizers.base import Quantized, Quantizer


class Convolution(nn.Module):
    """Same-size convolution with kernel 3 on every axis; in 3-D first over space, then over time."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rank = x.ndim - 2
        kernels = [(1, 3, 3), (3, 1, 1)] if rank == 3 else [(3,) * rank]
        for kernel in kernels:
            x = nn.Conv(self.width, kernel)(x)
        return x


class ResidualBlock(nn.Module):
    """x + conv1(silu(conv3(silu(norm(x))))), the second convolution of kernel 1 starting at zero."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        hidden = nn.silu(nn.RMSNorm()(x))
        hidden = nn.silu(Convolution(width)(hidden))
        return x + nn.Dense(width, kernel_init=nn.initializers.zeros)(hidden)


class Encoder(nn.Module):
    """[B, *size, C] -> latents [B, *grid, dimension]."""

    widths: Sequence[int]
    blocks: int
    patch: Sequence[int]
    dimension: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = space_to_depth(x, self.patch)
        for stage, width in enumerate(self.widths):
            if stage:
                x = space_to_depth(x, (2,) * (x.ndim - 2))
            x = nn.Dense(width)(x)
            for _ in range(self.blocks):
                x = ResidualBlock()(x)
        return nn.Dense(self.dimension)(nn.RMSNorm()(x))


class Decoder(nn.Module):
    """Code vectors [B, *grid, dimension] -> [B, *size, C]; the mirror image of the encoder."""

    widths: Sequence[int]
    blocks: int
    patch: Sequence[int]
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rank = x.ndim - 2
        x = nn.Dense(self.widths[-1])(x)
        for stage in reversed(range(len(self.widths))):
            for _ in range(self.blocks):
                x = ResidualBlock()(x)
            if stage:
                x = depth_to_space(nn.Dense(self.widths[stage - 1] * 2**rank)(x), (2,) * rank)
        pixels = self.channels
        for step in self.patch:
            pixels *= step
        return depth_to_space(nn.Dense(pixels)(nn.RMSNorm()(x)), self.patch)


class Standardise(nn.Module):
    """Latents of zero mean and unit variance in every dimension, so that no quantizer starts or ends in one cell.

    Training uses the statistics of the batch, over all devices, and moves the averages that are used afterwards, as
    batch normalisation does (arXiv:1502.03167). They live in the `codebook` collection.
    """

    decay: float = 0.98

    @nn.compact
    def __call__(self, z: jax.Array, train: bool) -> jax.Array:
        z = z.astype(jnp.float32)
        shape, axes = (z.shape[-1],), tuple(range(z.ndim - 1))
        mean = self.variable('codebook', 'mean', jnp.zeros, shape, jnp.float32)
        variance = self.variable('codebook', 'variance', jnp.ones, shape, jnp.float32)
        centre, spread = mean.value, variance.value
        if train:
            centre, spread = jnp.mean(z, axes), jnp.var(z, axes)
            mean.value = self.decay * mean.value + (1 - self.decay) * jax.lax.stop_gradient(centre)
            variance.value = self.decay * variance.value + (1 - self.decay) * jax.lax.stop_gradient(spread)
        lead = (1,) * (z.ndim - 1) + (-1,)
        return (z - centre.reshape(lead)) * jax.lax.rsqrt(spread.reshape(lead) + 1e-6)


class Reconstruction(NamedTuple):
    """The output of the autoencoder: `output [B, *size, C]` and what the quantizer made of the latents."""

    output: jax.Array
    quantized: Quantized


class Autoencoder(nn.Module):
    """Encoder, quantizer, decoder.

    Attributes:
        quantizer: any module of `vqdit.tokenizers.quantizers`.
        channels: C of the data.
        widths: channels at each resolution; every further one halves all axes.
        blocks: residual blocks at each resolution, on both sides.
        patch: positions folded into channels by the first layer, one number for each axis.
    """

    quantizer: Quantizer
    channels: int
    widths: Sequence[int]
    blocks: int
    patch: Sequence[int]

    def setup(self):
        self.encoder = Encoder(self.widths, self.blocks, self.patch, self.quantizer.dimension)
        self.standardise = Standardise()
        self.decoder = Decoder(self.widths, self.blocks, self.patch, self.channels)

    def __call__(self, x: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> Reconstruction:
        self._check(x)
        quantized = self.quantizer(self.standardise(self.encoder(x), train), train=train, key=key)
        return Reconstruction(self.decoder(quantized.vectors), quantized)

    def encode(self, x: jax.Array) -> jax.Array:
        """Codes int32 [B, *grid, levels] of data [B, *size, C]."""
        self._check(x)
        return self.quantizer(self.standardise(self.encoder(x), False)).codes

    def decode(self, codes: jax.Array) -> jax.Array:
        """Data [B, *size, C] of codes int32 [B, *grid, levels]."""
        return self.decoder(self.quantizer.lookup(codes))

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Code vectors [..., dimension] of codes int32 [..., levels]."""
        return self.quantizer.lookup(codes)

    def _check(self, x: jax.Array) -> None:
        chex.assert_rank(x, len(self.patch) + 2)
        chex.assert_axis_dimension(x, -1, self.channels)


def grid_of(size: Sequence[int], patch: Sequence[int], stages: int) -> tuple[int, ...]:
    """The token grid of data of `size`. Raises UserError when an axis is not divisible by its total stride."""
    strides = [step * 2 ** (stages - 1) for step in patch]
    if len(size) != len(patch) or any(side % stride for side, stride in zip(size, strides)):
        raise UserError(f'data of size {tuple(size)} is not divisible by the tokenizer strides {tuple(strides)}; '
                        'change the size, the patch or the number of widths')
    return tuple(side // stride for side, stride in zip(size, strides))
