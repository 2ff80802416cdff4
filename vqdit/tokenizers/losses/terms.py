"""The losses that a config may ask for by name, with weights and options."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vqdit.errors import UserError, nearest
from vqdit.registry import choose
from vqdit.tokenizers.losses import reconstruction, spectral
from vqdit.tokenizers.losses.perceptual import perceptual_loss, read_perceptual_weights

Loss = Callable[[jax.Array, jax.Array], jax.Array]
"""`(output, target) -> fp32 scalar` of what the autoencoder gives and what it was given, [B, *size, C]."""
CERTAIN = 1 - 1e-6
"""The largest output that the cross-entropy tells from a certain 1, where it would be infinite."""


@dataclass(frozen=True)
class Term:
    """A loss that is added with a weight and logged under its name."""

    name: str
    weight: float
    loss: Loss


def build_terms(weights: Mapping[str, Any], path: str, **known: Any) -> tuple[Term, ...]:
    """Terms of a mapping of names to weights, or to mappings of `weight` and options; weights of 0 are left out.

    Args:
        weights: such as {'gradient': 0.1, 'mel': {'weight': 15.0, 'windows': (256, 64), 'bands': (40, 10)}}.
        path: what errors call it.
        known: options that need not be stated, such as `rate`, given to the losses that take them.

    Raises UserError for an unknown name or option.
    """
    terms = []
    for name, value in weights.items():
        options = dict(value) if isinstance(value, Mapping) else {'weight': value}
        weight, make = options.pop('weight', 1.0), choose(LOSSES, name, f'{path} name')
        if weight:
            terms.append(Term(name, weight, make(**_complete(make, options, known, f'{path}.{name}'))))
    return tuple(terms)


def _complete(make: Callable[..., Loss], options: dict[str, Any], known: Mapping[str, Any], path: str) -> dict:
    parameters = inspect.signature(make).parameters
    for option in options:
        if option not in parameters:
            raise UserError(f'{path}.{option} is no option; it takes {", ".join(["weight", *parameters])}.'
                            f'{nearest(option, parameters)}')
    options = {name: value for name, value in known.items() if name in parameters} | options
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in options:
            raise UserError(f'{path}.{name} is missing; set it')
    return options


def _absolute() -> Loss:
    return lambda output, target: reconstruction.reconstruction_loss(output, target, 1.0, 0.0)


def _squared() -> Loss:
    return lambda output, target: reconstruction.reconstruction_loss(output, target, 0.0, 1.0)


def _charbonnier(epsilon: float = 1e-3) -> Loss:
    return lambda output, target: reconstruction.charbonnier_loss(output, target, epsilon)


def _gradient() -> Loss:
    return reconstruction.gradient_loss


def _dissimilarity() -> Loss:
    return reconstruction.dissimilarity_loss


def _binary_cross_entropy() -> Loss:
    """Of data in [-1, 1] that stands for probabilities, the output for exact ones: 2 artanh is its logit.

    The output is within [-1, 1] itself, by `tanh`; beyond it there is no slope.
    """
    def loss(output: jax.Array, target: jax.Array) -> jax.Array:
        logits = 2 * jnp.arctanh(jnp.clip(output.astype(jnp.float32), -CERTAIN, CERTAIN))
        return reconstruction.binary_cross_entropy(logits, (target + 1) / 2)
    return loss


def _perceptual(weights: str) -> Loss:
    """`weights` is a file for `read_perceptual_weights`."""
    network = read_perceptual_weights(Path(weights))
    return lambda output, target: perceptual_loss(network, output, target)


def _mel(rate: int, windows: tuple[int, ...] = (32, 64, 128, 256, 512, 1024),
         bands: tuple[int, ...] = (5, 10, 20, 40, 80, 160)) -> Loss:
    return lambda output, target: spectral.mel_loss(_sound(output), _sound(target), rate, windows, bands)


def _spectral(windows: tuple[int, ...] = (1024, 512, 256)) -> Loss:
    return lambda output, target: spectral.spectral_loss(_sound(output), _sound(target), windows)


def _sound(x: jax.Array) -> jax.Array:
    """[B, samples] of [B, samples, 1]. Raises UserError for pictures, films, spectrograms and stereo."""
    if x.ndim != 3 or x.shape[-1] != 1:
        raise UserError(f'the losses "mel" and "spectral" are of sound [B, samples, 1], but these data are {x.shape}; '
                        'remove them from losses, or choose kind "waveform" or "vocoder"')
    return x[..., 0]


LOSSES: dict[str, Callable[..., Loss]] = {
    'absolute': _absolute, 'squared': _squared, 'charbonnier': _charbonnier, 'gradient': _gradient,
    'dissimilarity': _dissimilarity, 'binary_cross_entropy': _binary_cross_entropy, 'perceptual': _perceptual,
    'mel': _mel, 'spectral': _spectral}
"""Makers of losses from their options. "mel" and "spectral" are of sound [B, samples, 1]."""
BOUNDED = ('binary_cross_entropy',)
"""Those that need an output within [-1, 1]."""
