import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.tokenizers.spectrogram import LogMel, mel_matrix

RATE = 8000
SMALL = LogMel(rate=RATE, window_length=256, hop=64, bands=32, samples=2048)
SPEECH = LogMel(rate=RATE, window_length=512, hop=128, bands=64, samples=8192)


def tones(frequencies, settings, amplitude=0.5):
    """Sinusoids, fp32 [B, samples]."""
    time = np.arange(settings.samples) / settings.rate
    return (amplitude * np.sin(2 * np.pi * np.outer(frequencies, time))).astype(np.float32)


@functools.cache
def compiled(settings):
    return jax.jit(lambda waveform: settings.synthesise(settings.analyse(waveform)))


def round_trip(waveform, settings):
    return np.asarray(compiled(settings)(waveform), np.float64)


def decibels(change):
    return 20 * np.log10(change)


def loudness(waveform):
    return np.sqrt(np.mean(np.square(waveform, dtype=np.float64), axis=-1))


def spectrum(waveform, settings):
    """Magnitudes [B, F, bins] in float64, by the definition of the discrete Fourier transform."""
    length, hop = settings.window_length, settings.hop
    before = (length - hop) // 2
    padded = np.pad(np.float64(waveform), ((0, 0), (before, length - hop - before)), mode='reflect')
    frames = np.stack(
        [padded[:, start : start + length] for start in range(0, settings.samples, hop)], axis=1
    )
    phase = np.outer(np.arange(length), np.arange(length // 2 + 1)) % length
    window = np.hanning(length + 1)[:-1]
    return np.abs(frames * window @ np.exp(-2j * np.pi * phase / length)) * 2 / window.sum()


def mel_triangles(settings):
    """The matrix [bins, bands] in float64: each triangle, averaged numerically over each bin."""
    bins = np.arange(settings.window_length // 2 + 1)[:, None]
    points = (bins + (np.arange(2000) + 0.5) / 2000 - 0.5) * settings.rate / settings.window_length
    mel = np.linspace(0, 2595 * np.log10(1 + settings.rate / 1400), settings.bands + 2)
    corners = 700 * 10 ** (mel / 2595) - 700
    return np.stack(
        [
            np.interp(points, corners[band : band + 3], [0, 1, 0]).mean(axis=1)
            for band in range(settings.bands)
        ],
        axis=1,
    )


@pytest.mark.parametrize('settings', [SMALL, SPEECH, LogMel(16000, 600, 200, 100, 3000)])
def test_mel_matrix_is_the_average_of_triangles(settings):
    np.testing.assert_allclose(mel_matrix(settings), mel_triangles(settings), atol=1e-5)
    assert mel_matrix(settings).sum(axis=0).min() > 0.5
    assert mel_matrix(settings).sum(axis=1).min() > 0


def test_analysis_against_the_definition():
    waveform = np.random.default_rng(0).uniform(-1, 1, (3, SMALL.samples)).astype(np.float32)
    waveform[1] *= 1e-3
    waveform[2, 1000:] = 0
    amplitudes = spectrum(waveform, SMALL) @ mel_triangles(SMALL)
    expected = 1 - 2 * np.log(amplitudes + SMALL.floor) / np.log(SMALL.floor)
    found = SMALL.analyse(jnp.asarray(waveform))
    assert found.dtype == jnp.float32
    assert found.shape == (3, *SMALL.size, SMALL.channels) == (3, 32, 32)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_scale_of_the_bands():
    """One at full amplitude, a unit less for the root of the floor, minus one in silence."""
    for amplitude, value in ((1, 1), (1e-2, 0), (0, -1)):
        log_mel = SMALL.analyse(jnp.asarray(tones([1000], SMALL, amplitude)))[:, 8:-8]
        assert abs(float(log_mel.max()) - value) < 0.1


def test_inverse_transform_is_exact_for_sound():
    blocks = np.random.default_rng(0).normal(size=(1, 35, 64)).astype(np.float32)
    found = jax.jit(lambda x: SMALL._invert(SMALL._transform(x)))(blocks)
    np.testing.assert_allclose(found[:, 1:-1], blocks[:, 1:-1], atol=2e-5)


def test_inverse_transform_is_the_closest_for_any_spectrum():
    """What it leaves of a spectrum is orthogonal to all sounds (but in the outermost hops)."""
    rng = np.random.default_rng(0)
    spectra = rng.normal(size=(1, 32, 129)) + 1j * rng.normal(size=(1, 32, 129))
    spectra = spectra.astype(np.complex64)
    spectra[..., [0, -1]] = spectra[..., [0, -1]].real
    rest = spectra - jax.jit(lambda x: SMALL._transform(SMALL._invert(x)))(spectra)
    blocks = rng.normal(size=(1, 35, 64)).astype(np.float32)
    blocks[:, [0, -1]] = 0
    sound = np.complex128(jax.jit(SMALL._transform)(blocks))
    both_sides = np.r_[1, np.full(127, 2), 1]
    product = np.sum(both_sides * (np.conj(rest) * sound).real)
    sizes = [np.sqrt(np.sum(both_sides * np.abs(x) ** 2)) for x in (rest, sound)]
    assert abs(product) < 1e-5 * sizes[0] * sizes[1]
    assert sizes[0] > 0.5 * np.linalg.norm(spectra)


def test_magnitudes_explain_the_bands():
    amplitudes = spectrum(tones([300, 500, 1700], SMALL), SMALL) @ mel_triangles(SMALL)
    found = np.asarray(jax.jit(SMALL._magnitudes)(amplitudes.astype(np.float32)))
    assert found.min() >= 0
    error = np.linalg.norm(found @ mel_triangles(SMALL) - amplitudes) / np.linalg.norm(amplitudes)
    assert decibels(error) < -25


def test_griffin_lim_comes_closer_with_iterations():
    waveform = np.random.default_rng(0).normal(size=(2, SMALL.samples)).astype(np.float32)
    wanted = spectrum(waveform, SMALL)
    errors = []
    sound = jax.jit(lambda x, count: SMALL._transform(SMALL._griffin_lim(x, count)))
    for iterations in (0, 8, 32, 100):
        found = np.abs(sound(wanted.astype(np.float32), iterations))
        errors.append(decibels(np.linalg.norm(found - wanted) / np.linalg.norm(wanted)))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > -6 and errors[2] < -17 and errors[3] < -20


@pytest.mark.parametrize('settings', [SMALL, SPEECH])
def test_pitch_and_loudness_of_a_tone(settings):
    waveform = tones([440, 880, 440], settings)
    sound = round_trip(waveform, settings)
    transform = np.abs(np.fft.rfft(sound * np.hanning(settings.samples), 2**18))
    pitch = transform.argmax(axis=1) * settings.rate / 2**18
    np.testing.assert_allclose(pitch, [440, 880, 440], rtol=0.01)
    np.testing.assert_allclose(decibels(loudness(sound) / loudness(waveform)), 0, atol=1)


def test_silence_stays_silence():
    silence = np.zeros((3, SMALL.samples), np.float32)
    np.testing.assert_allclose(SMALL.analyse(jnp.asarray(silence)), -1, atol=1e-6)
    assert np.abs(round_trip(silence, SMALL)).max() < 1e-5


def test_any_spectrogram_gives_finite_sound():
    log_mel = np.random.default_rng(0).normal(size=(6, 32, 32)).astype(np.float32)
    log_mel *= np.array([0, 1e-3, 1, 100, 1e30, 1])[:, None, None]
    log_mel[5] = -1
    sound = np.asarray(jax.jit(SMALL.synthesise)(log_mel))
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() <= 1
    assert not sound[5].any()


def test_a_click_sounds_when_it_should():
    waveform = np.zeros((3, SMALL.samples), np.float32)
    times = [10, 700, 2040]
    waveform[range(3), times] = 1
    heard = np.abs(round_trip(waveform, SMALL)).argmax(axis=1)
    assert np.abs(heard - times).max() < SMALL.hop


def test_a_clip_sounds_the_same_in_any_batch():
    waveform = tones([300, 440, 2000], SMALL)
    together = round_trip(waveform, SMALL)
    np.testing.assert_allclose(round_trip(waveform[1:2], SMALL)[0], together[1], atol=1e-3)
    np.testing.assert_array_equal(round_trip(waveform, SMALL), together)


@pytest.mark.parametrize(
    'change, message',
    [
        ({'samples': 2047}, 'samples=2047 must be a multiple of hop=64'),
        ({'window_length': 250}, 'window_length=250 must be a multiple of hop=64'),
        ({'window_length': 64}, 'at least two hops'),
        ({'samples': 192}, 'at most the 192 samples'),
    ],
)
def test_lengths_that_do_not_go_together(change, message):
    fields = {'rate': RATE, 'window_length': 256, 'hop': 64, 'bands': 32, 'samples': 2048}
    with pytest.raises(UserError, match=message):
        LogMel(**fields | change)


def test_shapes_are_checked():
    with pytest.raises(AssertionError):
        SMALL.analyse(jnp.zeros((1, 2047)))
    with pytest.raises(AssertionError):
        SMALL.synthesise(jnp.zeros((1, 31, 32)))


def test_real_speech(shared_data):
    """Spoken digits: close in the spectrum, as loud, and in place."""
    import tensorflow_datasets as tfds

    folder = shared_data / 'tfds' / 'spoken_digit' / '1.0.9'
    source = tfds.builder_from_directory(folder).as_data_source(split='train')
    clips = [np.asarray(source[index]['audio'], np.float32) / 2**15 for index in range(0, 800, 100)]
    waveform = np.stack([np.resize(clip, SPEECH.samples) for clip in clips])
    log_mel = SPEECH.analyse(jnp.asarray(waveform))
    assert -0.7 < float(log_mel.mean()) < 0.2 and 0.25 < float(log_mel.std()) < 0.5
    sound = round_trip(waveform, SPEECH)
    wanted, found = spectrum(waveform, SPEECH), spectrum(sound, SPEECH)
    assert decibels(np.linalg.norm(found - wanted) / np.linalg.norm(wanted)) < -11
    np.testing.assert_allclose(decibels(loudness(sound) / loudness(waveform)), 0, atol=1)
    again = SPEECH.analyse(jnp.asarray(sound, jnp.float32))
    assert float(jnp.abs(again - log_mel).mean()) < 0.03
