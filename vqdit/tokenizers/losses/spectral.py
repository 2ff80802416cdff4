"""Losses of sound in several time-frequency resolutions at once; sound is fp32 [B, samples]."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.tokenizers.spectrogram import LogMel, mel_matrix

FLOOR = 1e-5
"""Magnitudes below it count as silence."""


def windowed_frames(waveform: jax.Array, window: int, hop: int) -> jax.Array:
    """Frames of sound [B, samples] centred on multiples of `hop` under a periodic Hann window, [B, frames, window].

    The ends are reflected, as in `torch.stft`. Raises UserError for sound too short for that.
    """
    chex.assert_rank(waveform, 2)
    samples = waveform.shape[1]
    if samples <= window // 2:
        raise UserError(f'sound of {samples} samples is too short for a window of {window}; leave that window out')
    padded = jnp.pad(waveform.astype(jnp.float32), ((0, 0), (window // 2, window // 2)), mode='reflect')
    starts = hop * np.arange(samples // hop + 1)
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    return padded[:, starts[:, None] + np.arange(window)[None]] * hann[None, None]


def magnitudes(waveform: jax.Array, window: int, hop: int) -> jax.Array:
    """Magnitudes of the short-time Fourier transform of sound, fp32 [B, samples // hop + 1, window // 2 + 1]."""
    spectrum = jnp.fft.rfft(windowed_frames(waveform, window, hop))
    power = spectrum.real**2 + spectrum.imag**2
    # The slope of the root at silence is finite.
    return jnp.sqrt(jnp.maximum(power, 1e-14))


def spectral_loss(output: jax.Array, target: jax.Array, windows: Sequence[int] = (2048, 1024, 512)) -> jax.Array:
    """Spectral convergence plus the mean error of log magnitudes, averaged over windows with hops of a quarter.

    (Yamamoto et al. 2019, Parallel WaveGAN, arXiv:1910.11480, eq. 4-6.)
    """
    chex.assert_equal_shape([output, target])
    losses = []
    for window in windows:
        a, b = (magnitudes(sound, window, window // 4) for sound in (output, target))
        convergence = jnp.sqrt(jnp.sum((b - a) ** 2) + 1e-14) / jnp.maximum(jnp.sqrt(jnp.sum(b**2)), FLOOR)
        losses.append(convergence + jnp.mean(jnp.abs(_log(a) - _log(b))))
    return jnp.mean(jnp.stack(losses))


def mel_loss(output: jax.Array, target: jax.Array, rate: int,
             windows: Sequence[int] = (32, 64, 128, 256, 512, 1024, 2048),
             bands: Sequence[int] = (5, 10, 20, 40, 80, 160, 320)) -> jax.Array:
    """Mean absolute error of log10 mel magnitudes, summed over windows with hops of a quarter.

    (Kumar et al. 2023, DAC, arXiv:2306.06546, section 3.4, where it weighs 15.)
    """
    chex.assert_equal_shape([output, target])
    losses = [jnp.mean(jnp.abs(log_mel(output, rate, window, count) - log_mel(target, rate, window, count)))
              for window, count in zip(windows, bands, strict=True)]
    return jnp.sum(jnp.stack(losses))


def log_mel(waveform: jax.Array, rate: int, window: int, bands: int) -> jax.Array:
    """log10 of the magnitudes of mel bands, fp32 [B, frames, bands]."""
    settings = LogMel(rate=rate, window_length=window, hop=window // 4, bands=bands, samples=window)
    products = jnp.matmul(magnitudes(waveform, window, window // 4), mel_matrix(settings),
                          precision=jax.lax.Precision.HIGHEST)
    return _log(products) / np.log(10).astype(np.float32)


def _log(x: jax.Array) -> jax.Array:
    return jnp.log(jnp.maximum(x, FLOOR))
