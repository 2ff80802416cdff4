"""Networks that tell reconstructions from data, for the losses in `losses/adversarial.py`.

Each gives a `Judgement` of data [B, *size, C]: logits, high for real, and the features of every layer before them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.registry import choose
from vqdit.tokenizers.autoencoder import groups_of
from vqdit.tokenizers.losses.spectral import windowed_frames

SLOPE = 0.2
BLUR = np.asarray([1, 3, 3, 1], np.float32) / 8
"""The binomial filter before every other place is left out."""


class Judgement(NamedTuple):
    """Logits of each part of a discriminator, and its features in the order of the layers."""

    logits: tuple[jax.Array, ...]
    features: tuple[jax.Array, ...]


class PatchDiscriminator(nn.Module):
    """A logit for every patch of data of 1 to 3 axes (PatchGAN; Isola et al. 2016, arXiv:1611.07004).

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


class ResidualDiscriminator(nn.Module):
    """One logit for all of the data: residual blocks that halve what they have blurred.

    (StyleGAN2, Karras et al. 2019, arXiv:1912.04958, section 4.1; without its statistics of the batch, so that an item
    does not depend on the others.)

    Attributes:
        width: channels of the first layer; every further one has twice as many, up to eight times.
        layers: that halve the size.
    """

    width: int = 32
    layers: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> Judgement:
        kernel, features = (3,) * (x.ndim - 2), []
        x = nn.leaky_relu(nn.Dense(self.width)(x), SLOPE)
        for layer in range(self.layers):
            width = self.width * min(2 ** (layer + 1), 8)
            hidden = nn.leaky_relu(nn.Conv(x.shape[-1], kernel)(x), SLOPE)
            hidden = nn.leaky_relu(nn.Conv(width, kernel)(_halved(hidden)), SLOPE)
            x = (nn.Dense(width, use_bias=False)(_halved(x)) + hidden) / math.sqrt(2)
            features.append(x)
        x = nn.leaky_relu(nn.Conv(x.shape[-1], kernel)(x), SLOPE)
        x = nn.leaky_relu(nn.Dense(x.shape[-1])(x.reshape(len(x), -1)), SLOPE)
        return Judgement((nn.Dense(1)(x)[..., 0],), tuple(features))


class MultiPeriodDiscriminator(nn.Module):
    """Sound [B, samples, 1] folded to rows of each period (HiFi-GAN, arXiv:2010.05646, section 2.3)."""

    periods: Sequence[int] = (2, 3, 5, 7, 11)
    width: int = 32
    layers: int = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> Judgement:
        x = _sound(x)
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
    """Real and imaginary parts of Fourier transforms of sound [B, samples, 1] with several windows.

    (MS-STFT discriminator of EnCodec, Defossez et al. 2022, arXiv:2210.13438, section 3.4.)
    """

    windows: Sequence[int] = (2048, 1024, 512)
    width: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> Judgement:
        x = _sound(x)
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


class Panel(nn.Module):
    """Several discriminators that judge side by side."""

    members: Sequence[nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> Judgement:
        logits, features = zip(*(member(x) for member in self.members))
        return Judgement(sum(logits, ()), sum(features, ()))


DISCRIMINATORS: dict[str, Callable[..., nn.Module]] = {
    'patch': PatchDiscriminator, 'residual': ResidualDiscriminator, 'multi_period': MultiPeriodDiscriminator,
    'spectral': SpectralDiscriminator}


def build_discriminator(members: Sequence[Mapping[str, Any]], path: str = 'discriminators') -> nn.Module:
    """The panel of mappings of `name` and options; `path` is what errors call it.

    Raises UserError for none, or an unknown name or option.
    """
    if not members:
        raise UserError(f'{path} is empty; name at least one of {", ".join(DISCRIMINATORS)}')
    built = []
    for number, options in enumerate(members):
        options = dict(options)
        kind = choose(DISCRIMINATORS, options.pop('name', ''), f'{path}.{number}.name')
        try:
            built.append(kind(**options))
        except TypeError as error:
            raise UserError(f'{path}.{number}: {error}') from error
    return Panel(tuple(built))


def _sound(x: jax.Array) -> jax.Array:
    """[B, samples] of [B, samples, 1]."""
    chex.assert_rank(x, 3)
    chex.assert_axis_dimension(x, -1, 1)
    return x[..., 0]


def _halved(x: jax.Array) -> jax.Array:
    """Every other place of `x [B, *size, C]` under the blur; odd sizes are rounded up."""
    for axis in range(1, x.ndim - 1):
        count = -(-x.shape[axis] // 2)
        padding = [(0, 0)] * x.ndim
        padding[axis] = (1, 2 * count + 1 - x.shape[axis])
        x = jnp.pad(x, padding, mode='edge')
        shifted = [weight * jax.lax.slice_in_dim(x, k, k + 2 * count - 1, 2, axis) for k, weight in enumerate(BLUR)]
        x = sum(shifted[1:], start=shifted[0])
    return x


def _normalised(x: jax.Array) -> jax.Array:
    """Groups of channels of zero mean and unit variance; unlike in a batch, an item does not depend on the others."""
    return nn.GroupNorm(groups_of(x.shape[-1]), use_fast_variance=False)(x)
