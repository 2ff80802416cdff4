import jax
import numpy as np
import pytest
from scipy.signal import ShortTimeFFT

from vqdit.errors import UserError
from vqdit.tokenizers.losses.spectral import log_mel, magnitudes, mel_loss, spectral_loss

SOUND = np.random.default_rng(0).normal(size=(2, 400)).astype(np.float32)


def test_magnitudes_are_those_of_scipy_on_reflected_sound():
    """Reference case 36: the framing of `torch.stft`, periodic Hann and reflected ends."""
    window, hop = 64, 16
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    transform = ShortTimeFFT(hann, hop, fs=1, fft_mode='onesided', phase_shift=None)
    padded = np.pad(SOUND[0].astype(np.float64), window // 2, mode='reflect')
    frames = [np.abs(np.fft.rfft(padded[i:i + window] * hann)) for i in range(0, 400 + 1, hop)]
    np.testing.assert_allclose(magnitudes(SOUND, window, hop)[0], frames, atol=1e-4)
    inner = np.abs(transform.stft(SOUND[0].astype(np.float64), p0=2, p1=20)).T
    np.testing.assert_allclose(magnitudes(SOUND, window, hop)[0, 2:20], inner, atol=1e-4)


def test_silence_is_finite_with_its_gradient():
    """Reference case 36: the logarithm has a floor."""
    for loss in (lambda x, y: spectral_loss(x, y, (64, 32)), lambda x, y: mel_loss(x, y, 8000, (64, 32), (8, 4))):
        value, slope = jax.jit(jax.value_and_grad(loss))(0 * SOUND, SOUND)
        assert np.isfinite(value) and np.isfinite(slope).all()
        assert float(loss(SOUND, SOUND)) == pytest.approx(0, abs=1e-6)
        assert np.isfinite(loss(SOUND, 0 * SOUND))


def test_spectral_loss_is_convergence_and_log_distance():
    """arXiv:1910.11480, eq. 4-6."""
    a, b = (np.asarray(magnitudes(x, 64, 16), np.float64) for x in (SOUND, SOUND[::-1] * 0.5))
    expected = np.linalg.norm(b - a) / np.linalg.norm(b) + np.mean(np.abs(np.log(a) - np.log(b)))
    assert float(spectral_loss(SOUND, SOUND[::-1] * 0.5, (64,))) == pytest.approx(expected, rel=1e-4)


def test_ten_times_the_amplitude_is_one_in_log_mel():
    difference = log_mel(10 * SOUND, 8000, 64, 8) - log_mel(SOUND, 8000, 64, 8)
    np.testing.assert_allclose(difference, 1, atol=1e-4)
    assert float(mel_loss(10 * SOUND, SOUND, 8000, (64, 32), (8, 4))) == pytest.approx(2, abs=1e-3)


def test_a_clip_shorter_than_a_window_is_refused():
    """Reference case 36."""
    with pytest.raises(UserError, match='400 samples is too short for a window of 1024'):
        mel_loss(SOUND, SOUND, 8000, (1024,), (10,))
