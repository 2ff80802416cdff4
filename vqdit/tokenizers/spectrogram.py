"""Sound as a log-mel spectrogram, and back: what an audio tokenizer sees, and what it is heard by.

Back means: magnitudes of the Fourier bins that come closest to the mel bands in the
Kullback-Leibler divergence (multiplicative updates of Lee and Seung 2001; on speech 1 dB better
than least squares, in a tenth of the updates), then phases by the fast Griffin-Lim algorithm
(Perraudin, Balazs and Sondergaard 2013). A window is a whole number of hops, so that framing only
shifts blocks of one hop.
"""

import functools
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError

MOMENTUM = 0.99
UPDATES = 16
TINY = 1e-12


@dataclass(frozen=True)
class LogMel:
    """Log-mel spectrograms of clips of one length.

    A band is -1 in silence and 1 for a sinusoid of amplitude 1, in between linear in decibels:
    `1 - 2 log(amplitude + floor) / log(floor)`. With 1e-4 as the floor, a unit is 40 dB; read
    speech has a mean of -0.3 and a standard deviation of 0.4.

    Attributes:
        rate: of the sound, in Hz.
        window_length: samples of the Hann window and its transform, a multiple of `hop`.
        hop: samples from one frame to the next.
        bands: triangular mel bands between 0 and `rate` / 2.
        samples: of a clip, a multiple of `hop`.
        floor: the amplitude at which silence begins.

    Raises UserError when the lengths do not go together.
    """

    rate: int
    window_length: int
    hop: int
    bands: int
    samples: int
    floor: float = 1e-4

    def __post_init__(self) -> None:
        for name in ('window_length', 'samples'):
            if getattr(self, name) % self.hop:
                raise UserError(
                    f'audio {name}={getattr(self, name)} must be a multiple of hop={self.hop}'
                )
        if not 2 * self.hop <= self.window_length <= self.samples:
            raise UserError(
                f'audio window_length={self.window_length} must be at least two hops of {self.hop} '
                f'and at most the {self.samples} samples of a clip'
            )

    @property
    def size(self) -> tuple[int]:
        """Frames of a clip."""
        return (self.samples // self.hop,)

    @property
    def channels(self) -> int:
        """Bands of a frame."""
        return self.bands

    def analyse(self, waveform: jax.Array) -> jax.Array:
        """The log-mel spectrogram, fp32 [B, frames, bands], of sound [B, samples] in [-1, 1]."""
        amplitudes = _dot(jnp.abs(self.spectrum(waveform)), mel_matrix(self))
        return 1 - 2 * jnp.log(amplitudes + self.floor) / np.log(self.floor)

    def spectrum(self, waveform: jax.Array) -> jax.Array:
        """The short-time Fourier transform, complex64 [B, frames, bins], of sound [B, samples]."""
        chex.assert_shape(waveform, (None, self.samples))
        before = (self.window_length - self.hop) // 2
        margins = ((0, 0), (before, self.window_length - self.hop - before))
        padded = jnp.pad(waveform.astype(jnp.float32), margins, mode='reflect')
        return self._transform(padded.reshape(len(waveform), -1, self.hop))

    def sound(self, spectrum: jax.Array) -> jax.Array:
        """The sound, fp32 [B, samples], whose transform is closest to `spectrum` [B, frames, bins]."""
        return self._cut(self._invert(spectrum))

    def synthesise(self, log_mel: jax.Array, iterations: int = 24) -> jax.Array:
        """Sound, fp32 [B, samples] in [-1, 1], of a log-mel spectrogram [B, frames, bands]."""
        chex.assert_shape(log_mel, (None, *self.size, self.bands))
        # No sound exceeds 1.5; what an untrained model puts out must not overflow.
        log_amplitudes = (
            (1 - jnp.clip(log_mel.astype(jnp.float32), -1, 1.5)) / 2 * np.log(self.floor)
        )
        amplitudes = jnp.maximum(jnp.exp(log_amplitudes) - self.floor, 0)
        blocks = self._griffin_lim(self._magnitudes(amplitudes), iterations)
        return jnp.clip(self._cut(blocks), -1, 1)

    def _cut(self, blocks: jax.Array) -> jax.Array:
        """The samples of the clip in blocks that hold its margins too."""
        start = (self.window_length - self.hop) // 2
        return blocks.reshape(len(blocks), -1)[:, start : start + self.samples]

    def _magnitudes(self, amplitudes: jax.Array) -> jax.Array:
        """Magnitudes [B, F, bins] whose mel bands come closest to `amplitudes` [B, F, bands]."""
        matrix = mel_matrix(self)
        reach = matrix.sum(axis=1)[None, None]

        def update(_, guess):
            return guess * _dot(amplitudes / (_dot(guess, matrix) + TINY), matrix.T) / reach

        start = _dot(amplitudes, matrix.T) / (matrix @ matrix.sum(axis=0))[None, None]
        return jax.lax.fori_loop(0, UPDATES, update, start)

    def _griffin_lim(self, magnitudes: jax.Array, iterations: int) -> jax.Array:
        """Sound in blocks [B, F + window/hop - 1, hop] with about these magnitudes [B, F, bins]."""
        # Random phases, the same for every clip, end better than ordered ones.
        phases = jax.random.uniform(jax.random.key(0), (1, *magnitudes.shape[1:]), maxval=2 * np.pi)
        spectrum = magnitudes * jnp.exp(1j * phases)

        def step(_, state):
            spectrum, previous = state
            consistent = self._transform(self._invert(spectrum))
            ahead = consistent + MOMENTUM * (consistent - previous)
            power = ahead.real**2 + ahead.imag**2
            return magnitudes * ahead * jax.lax.rsqrt(power + TINY**2), consistent

        spectrum, _ = jax.lax.fori_loop(0, iterations, step, (spectrum, spectrum))
        return self._invert(spectrum)

    def _transform(self, blocks: jax.Array) -> jax.Array:
        """Short-time Fourier transform, complex64 [B, F, bins], of sound in blocks."""
        overlap = self.window_length // self.hop
        frames = blocks.shape[1] - overlap + 1
        framed = jnp.concatenate([blocks[:, j : j + frames] for j in range(overlap)], axis=-1)
        return jnp.fft.rfft(framed * analysis_window(self)[None, None])

    def _invert(self, spectrum: jax.Array) -> jax.Array:
        """The sound in blocks whose transform is closest to `spectrum` [B, F, bins]."""
        batch, frames, _ = spectrum.shape
        overlap = self.window_length // self.hop
        framed = jnp.fft.irfft(spectrum, self.window_length) * analysis_window(self)[None, None]
        weights = jnp.square(analysis_window(self)).reshape(1, 1, overlap, self.hop)
        total = _overlap_add(jnp.broadcast_to(weights, (1, frames, overlap, self.hop)))
        summed = _overlap_add(framed.reshape(batch, frames, overlap, self.hop))
        return summed / jnp.maximum(total, 1e-3 * total.max())


def analysis_window(settings: LogMel) -> np.ndarray:
    """The periodic Hann window, fp32 [window_length]; a sinusoid's peak is then its amplitude."""
    window = 0.5 - 0.5 * np.cos(
        2 * np.pi * np.arange(settings.window_length) / settings.window_length
    )
    return (window * 2 / window.sum()).astype(np.float32)


def mel_matrix(settings: LogMel) -> np.ndarray:
    """How much each bin adds to each band, fp32 [bins, bands].

    The bands are triangles of height 1 at equal steps of the mel scale `2595 log10(1 + f / 700)`.
    Each is averaged over the width of a bin, so that none is empty, however narrow.
    """
    top = 2595 * np.log10(1 + settings.rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, settings.bands + 2) / 2595) - 1)
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    width = settings.rate / settings.window_length
    edges = (np.arange(settings.window_length // 2 + 2) - 0.5)[:, None] * width
    rising = np.clip(edges - low, 0, middle - low) ** 2 / (middle - low)
    falling = np.clip(high - edges, 0, high - middle) ** 2 / (high - middle)
    area = (rising - falling) / 2
    return (np.diff(area, axis=0) / width).astype(np.float32)


def _overlap_add(pieces: jax.Array) -> jax.Array:
    """Adds frames in pieces of a hop [B, F, overlap, hop] into blocks [B, F + overlap - 1, hop]."""
    overlap = pieces.shape[2]
    shifted = [
        jnp.pad(pieces[:, :, j], ((0, 0), (j, overlap - 1 - j), (0, 0))) for j in range(overlap)
    ]
    return functools.reduce(jnp.add, shifted)


def _dot(x: jax.Array, matrix: np.ndarray) -> jax.Array:
    return jnp.dot(x, matrix, precision='highest')
