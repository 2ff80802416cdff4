"""Networks that tell reconstructions from data, for the losses in `losses/adversarial.py`.

Each gives a `Judgement`: logits, high for real, and the features of every layer before them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.tokenizers.losses.spectral import windowed_frames

SLOPE = 0.2


class Judgement(NamedTuple):
    """Logits of each part of a discriminator, and its features in the order of the layers."""

    logits: tuple[jax.Array, ...]
    features: tuple[jax.Array, ...]


class PatchDiscriminator(nn.Module):
    """A logit for every patch of data [B, *size, C], 1-D to 3-D (PatchGAN; Isola et al. 2016, arXiv:1611.07004).

    Attributes:
        width: channels of the first layer; every further one has twice as many, up to eight times.
        layers: that halve the size.
    """

    width: int = 64
    layers: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> Judgement:
        rank, features = x.ndim - 2, []
        for layer in range(self.layers + 1):
            stride = 2 if layer < self.layers else 1
            x = nn.Conv(self.width * min(2**layer, 8), (4,) * rank, (stride,) * rank, use_bias=layer == 0)(x)
            x = nn.leaky_relu(x if layer == 0 else _normalised(x), SLOPE)
            features.append(x)
        return Judgement((nn.Conv(1, (4,) * rank)(x)[..., 0],), tuple(features))


class MultiPeriodDiscriminator(nn.Module):
    """Sound [B, samples] folded to rows of each period (HiFi-GAN, Kong et al. 2020, arXiv:2010.05646, section 2.3)."""

    periods: Sequence[int] = (2, 3, 5, 7, 11)
    width: int = 32
    layers: int = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> Judgement:
        chex.assert_rank(x, 2)
        logits, features = [], []
        for period in self.periods:
            missing = -x.shape[1] % period
            folded = jnp.pad(x, ((0, 0), (0, missing)), mode='reflect').reshape(len(x), -1, period, 1)
            for layer in range(self.layers):
                conv = nn.Conv(self.width * 4**min(layer, 2), (5, 1), (3 if layer < self.layers - 1 else 1, 1))
                folded = nn.leaky_relu(nn.WeightNorm(conv)(folded), SLOPE)
                features.append(folded)
            logits.append(nn.WeightNorm(nn.Conv(1, (3, 1)))(folded)[..., 0])
        return Judgement(tuple(logits), tuple(features))


class SpectralDiscriminator(nn.Module):
    """Real and imaginary parts of Fourier transforms of sound [B, samples] with several windows.

    (MS-STFT discriminator of EnCodec, Defossez et al. 2022, arXiv:2210.13438, section 3.4.)
    """

    windows: Sequence[int] = (2048, 1024, 512)
    width: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> Judgement:
        chex.assert_rank(x, 2)
        logits, features = [], []
        for window in self.windows:
            spectrum = jnp.fft.rfft(windowed_frames(x, window, window // 4), norm='ortho')
            hidden = jnp.stack([spectrum.real, spectrum.imag], axis=-1)
            for stride, dilation in ((1, 1), (2, 1), (2, 2), (2, 4)):
                conv = nn.Conv(self.width, (3, 9), (1, stride), kernel_dilation=(dilation, 1))
                hidden = nn.leaky_relu(nn.WeightNorm(conv)(hidden), SLOPE)
                features.append(hidden)
            logits.append(nn.WeightNorm(nn.Conv(1, (3, 3)))(hidden)[..., 0])
        return Judgement(tuple(logits), tuple(features))


DISCRIMINATORS = {'patch': PatchDiscriminator, 'multi_period': MultiPeriodDiscriminator,
                  'spectral': SpectralDiscriminator}


def _normalised(x: jax.Array) -> jax.Array:
    """Groups of channels of zero mean and unit variance; unlike in a batch, an item does not depend on the others."""
    return nn.GroupNorm(num_groups=min(32, x.shape[-1] // 4), use_fast_variance=False)(x)
