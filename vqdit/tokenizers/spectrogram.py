"""Sound as a log-mel spectrogram and back: what an audio tokenizer sees, and what it is heard by.

Back means: magnitudes from mel bands by non-negative least squares (multiplicative updates, Lee and Seung 2001), then
phases by the fast Griffin-Lim algorithm (Perraudin, Balazs and Sondergaard 2013), all in fp32 and static shapes.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError

MOMENTUM = 0.99
TINY = 1e-12


@dataclass(frozen=True)
class LogMel:
    """Log-mel spectrograms of clips of one length.

    The value of a band is 1 for a sinusoid of amplitude 1 in its middle and -1 for silence; in between it is linear
    in decibels, with `floor` as the softest amplitude.

    Attributes:
        rate: of the sound, in Hz.
        samples: of a clip; a multiple of `hop`.
        window_length: samples of the Hann window and of its transform; a multiple of `hop`.
        hop: samples from one frame to the next.
        bands: mel bands from 0 to rate / 2.
        floor: amplitude that is taken for silence.
    """

    rate: int
    samples: int
    window_length: int = 512
    hop: int = 128
    bands: int = 64
    floor: float = 1e-4

    def __post_init__(self) -> None:
        for name in ('samples', 'window_length'):
            if getattr(self, name) % self.hop or getattr(self, name) < 2 * self.hop:
                raise UserError(f'audio {name} {getattr(self, name)} must be a multiple of hop {self.hop}, at least two')

    @property
    def size(self) -> tuple[int]:
        """Frames of a clip."""
        return (self.samples // self.hop,)

    @property
    def channels(self) -> int:
        return self.bands
