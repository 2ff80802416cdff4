"""Sounds against their originals: SI-SDR and mel distance."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from vqdit.tokenizers.losses.spectral import mel_loss

LEAST = 1e-12
"""Power that counts as none."""


def signal_to_distortion(sounds: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """Scale-invariant SDR in dB, float64 [B], of sound [B, samples]; 120 dB at most, either way.

    |a s|^2 over |a s - x|^2 of means-free x and s, with the a that brings s nearest to x (Le Roux et al. 2018,
    arXiv:1811.02508, eq. 2).
    """
    x, s = (part.astype(np.float64) - part.mean(axis=1, keepdims=True, dtype=np.float64)
            for part in (sounds, originals))
    scale = np.sum(x * s, axis=1, keepdims=True) / np.maximum(np.sum(s * s, axis=1, keepdims=True), LEAST)
    signal, distortion = np.sum((scale * s) ** 2, axis=1), np.sum((scale * s - x) ** 2, axis=1)
    return 10 * np.log10(np.clip(signal / np.maximum(distortion, LEAST), 1e-12, 1e12))


def mel_distance(sounds: np.ndarray, originals: np.ndarray, rate: int, windows: Sequence[int] = (256, 512, 1024),
                 bands: Sequence[int] = (20, 40, 80)) -> float:
    """Mean absolute error of log10 mel magnitudes over several windows, of sound fp32 [B, samples]."""
    return float(mel_loss(jnp.asarray(sounds), jnp.asarray(originals), rate, windows, bands)) / len(windows)
