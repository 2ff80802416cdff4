import numpy as np
import pytest

from vqdit.evaluation.sound import mel_distance, signal_to_distortion

RNG = np.random.default_rng(0)
SOUND = RNG.normal(size=(3, 4000)).astype(np.float32)


def test_scale_and_offset_cost_nothing():
    """arXiv:1811.02508: unlike SNR, a gain is no distortion."""
    assert (signal_to_distortion(0.1 * SOUND + 3, SOUND) > 60).all()


@pytest.mark.parametrize('decibels', [-10.0, 0.0, 20.0])
def test_orthogonal_noise_of_known_power_is_its_ratio(decibels):
    s = SOUND.astype(np.float64) - SOUND.mean(axis=1, keepdims=True, dtype=np.float64)
    noise = RNG.normal(size=s.shape)
    noise -= noise.mean(axis=1, keepdims=True)
    noise -= s * np.sum(noise * s, axis=1, keepdims=True) / np.sum(s * s, axis=1, keepdims=True)
    noise *= np.sqrt(np.sum(s * s, axis=1, keepdims=True) / np.sum(noise**2, axis=1, keepdims=True))
    np.testing.assert_allclose(signal_to_distortion(s + noise * 10 ** (-decibels / 20), s), decibels, atol=1e-6)


def test_silence_on_either_side_is_finite():
    assert np.isfinite(signal_to_distortion(0 * SOUND, SOUND)).all()
    assert np.isfinite(signal_to_distortion(SOUND, 0 * SOUND)).all()


def test_ten_times_the_amplitude_is_a_mel_distance_of_one():
    assert mel_distance(10 * SOUND, SOUND, 8000) == pytest.approx(1, abs=1e-3)
    assert mel_distance(SOUND, SOUND, 8000) == 0
