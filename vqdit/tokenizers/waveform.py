"""Codecs of sound as it is: strided convolutions in one dimension, down to latents and up again.

    [B, samples, C] -> convolution -> (residual units, activation, strided convolution) for every stride
      -> LSTM, if any -> activation, convolution -> latents [B, samples / hop, D]

SEANet of EnCodec (arXiv:2210.13438) and Mimi (arXiv:2410.00037), and the network of DAC
(arXiv:2306.06546) are this under other options. Sound is fp32 in [-1, 1].
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.tokenizers.padding import Centred, Margins, Padding, grid_of, keep
from vqdit.tokenizers.ranges import Range


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, with an alpha for every channel, for periodic signals (arXiv:2006.08195)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        alpha = self.param('alpha', nn.initializers.ones, (x.shape[-1],)).reshape((1,) * (x.ndim - 1) + (-1,))
        return x + jnp.sin(alpha * x) ** 2 / (alpha + 1e-9)


class Elu(nn.Module):
    """x above zero, exp(x) - 1 below (arXiv:1511.07289)."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.elu(x)


ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {'snake': Snake, 'elu': Elu}


@dataclass(frozen=True)
class CentredShort(Centred):
    """As DAC pads: after the transposed convolution of an odd stride the last sample is missing."""

    def overlap(self, module: nn.Module, x: jax.Array, kernel: int, stride: int) -> tuple[jax.Array, Margins]:
        side = math.ceil((kernel - stride) / 2)
        return x, (side, side)


@dataclass(frozen=True)
class Trunk:
    """What encoder and decoder share.

    Attributes:
        strides: of the encoder, first to last; their product is the hop, the samples that make a token.
        padding: `Centred()`, or `Causal()` for a codec that can stream.
        activation: `Snake` or `Elu`.
        unit_kernel: of the first convolution in a residual unit.
        dilations: of that convolution, one for every unit of a stride.
        squeeze: how much narrower a unit is inside.
        shortcut: whether a convolution of kernel 1 stands beside every unit, instead of nothing.
        recurrent: LSTMs at the lowest rate.
    """

    strides: tuple[int, ...]
    padding: Padding = field(default_factory=Centred)
    activation: Callable[..., nn.Module] = Snake
    unit_kernel: int = 7
    dilations: tuple[int, ...] = (1, 3, 9)
    squeeze: int = 1
    shortcut: bool = False
    recurrent: int = 0

    @property
    def hop(self) -> int:
        return math.prod(self.strides)


class TimeConvolution(nn.Module):
    """[B, T, C] -> [B, ceil(T / stride), width]."""

    width: int
    kernel: int
    padding: Padding
    stride: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        total = (self.kernel - 1) * self.dilation + 1 - self.stride
        x, margins = self.padding.surround(self, x, total, extra=-x.shape[1] % self.stride)
        return nn.Conv(self.width, (self.kernel,), self.stride, (margins,), kernel_dilation=self.dilation,
                       name='conv')(x)


class TransposedConvolution(nn.Module):
    """[B, T, C] -> [B, T stride, width], with a kernel of two strides."""

    width: int
    stride: int
    padding: Padding

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x, (before, after) = self.padding.overlap(self, x, 2 * self.stride, self.stride)
        x = nn.ConvTranspose(self.width, (2 * self.stride,), (self.stride,), 'VALID', name='conv')(x)
        return x[:, before:x.shape[1] - after]


class ResidualUnit(nn.Module):
    """x + conv1(act(conv(act(x)))), dilated."""

    trunk: Trunk
    dilation: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        trunk, width = self.trunk, x.shape[-1]
        hidden = trunk.activation(name='activation_0')(x)
        hidden = TimeConvolution(width // trunk.squeeze, trunk.unit_kernel, trunk.padding, dilation=self.dilation,
                                 name='convolution_0')(hidden)
        hidden = trunk.activation(name='activation_1')(hidden)
        hidden = TimeConvolution(width, 1, trunk.padding, name='convolution_1')(hidden)
        if trunk.shortcut:
            x = TimeConvolution(width, 1, trunk.padding, name='shortcut')(x)
        return x + hidden


class Recurrence(nn.Module):
    """x + LSTM(... LSTM(x)); [B, T, C] -> [B, T, C]. In a stream it goes on from its last state."""

    layers: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        out = x
        for layer in range(self.layers):
            name = f'carry_{layer}'
            carry = self.get_variable('stream', name) if self.has_variable('stream', name) else None
            lstm = nn.RNN(nn.OptimizedLSTMCell(x.shape[-1], name=f'lstm_{layer}'), return_carry=True)
            carry, out = lstm(out, initial_carry=carry)
            keep(self, name, carry)
        return x + out


class WaveformEncoder(nn.Module):
    """Sound [B, samples, C] -> latents [B, ceil(samples / hop), dimension].

    Attributes:
        trunk: what is shared with the decoder.
        width: channels at the full rate; every stride doubles them.
        dimension: of the latents.
        kernels: of the first and the last convolution.
    """

    trunk: Trunk
    width: int
    dimension: int
    kernels: tuple[int, int] = (7, 3)

    @nn.nowrap
    def grid(self, size: Sequence[int]) -> tuple[int, ...]:
        return grid_of(size, (self.trunk.hop,))

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        trunk, width = self.trunk, self.width
        x = TimeConvolution(width, self.kernels[0], trunk.padding, name='enter')(x)
        for stage, stride in enumerate(trunk.strides):
            for unit, dilation in enumerate(trunk.dilations):
                x = ResidualUnit(trunk, dilation, name=f'unit_{stage}_{unit}')(x)
            x, width = trunk.activation(name=f'activation_{stage}')(x), 2 * width
            x = TimeConvolution(width, 2 * stride, trunk.padding, stride, name=f'resample_{stage}')(x)
        if trunk.recurrent:
            x = Recurrence(trunk.recurrent, name='recurrence')(x)
        x = trunk.activation(name='activation')(x)
        return TimeConvolution(self.dimension, self.kernels[1], trunk.padding, name='leave')(x)


class WaveformDecoder(nn.Module):
    """Code vectors [B, T, D] -> sound [B, T hop, channels].

    Attributes:
        trunk: what is shared with the encoder.
        width: channels at the lowest rate; every stride halves them.
        channels: of the sound.
        kernels: of the first and the last convolution.
        bound: what is done to the sound at last; see `ranges`.
    """

    trunk: Trunk
    width: int
    channels: int = 1
    kernels: tuple[int, int] = (7, 7)
    bound: Range = jnp.tanh

    @nn.compact
    def __call__(self, vectors: jax.Array) -> jax.Array:
        trunk, width = self.trunk, self.width
        x = TimeConvolution(width, self.kernels[0], trunk.padding, name='enter')(vectors)
        if trunk.recurrent:
            x = Recurrence(trunk.recurrent, name='recurrence')(x)
        for stage, stride in enumerate(reversed(trunk.strides)):
            x, width = trunk.activation(name=f'activation_{stage}')(x), width // 2
            x = TransposedConvolution(width, stride, trunk.padding, name=f'resample_{stage}')(x)
            for unit, dilation in enumerate(trunk.dilations):
                x = ResidualUnit(trunk, dilation, name=f'unit_{stage}_{unit}')(x)
        x = trunk.activation(name='activation')(x)
        return self.bound(TimeConvolution(self.channels, self.kernels[1], trunk.padding, name='leave')(x))


@dataclass(frozen=True)
class Waveform:
    """The front end of sound that is coded as it is: fp32 [B, samples] <-> [B, samples, 1], clipped on the way back.

    Attributes:
        samples: of a clip.
        rate: in Hz.
    """

    samples: int
    rate: int

    @property
    def size(self) -> tuple[int]:
        return (self.samples,)

    @property
    def channels(self) -> int:
        return 1

    def analyse(self, waveform: jax.Array) -> jax.Array:
        return waveform.astype(jnp.float32)[..., None]

    def synthesise(self, x: jax.Array) -> jax.Array:
        return jnp.clip(x[..., 0], -1.0, 1.0)
