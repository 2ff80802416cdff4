"""The readers: exact on clean scenes, measured on damaged ones, silent where there is nothing."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vqdit.data import world_render as render
from vqdit.data.world import World
from vqdit.data.world_readers import READERS, read_audio, read_image, read_video
from vqdit.data.world_scenes import DETERMINED, Scene, all_scenes

NOTHING = {name: dict.fromkeys(shown) for name, shown in DETERMINED.items()}


def accuracy(modality, scenes, contents):
    """Fraction read right of each attribute."""
    readings = [READERS[modality](content) for content in contents]
    return {
        name: np.mean([reading[name] == scene.indices[name] for reading, scene in both])
        for name in DETERMINED[modality]
        for both in [list(zip(readings, scenes, strict=True))]
    }


def draw(modality, count, seed=11):
    examples = list(World(seed, count, (modality,)))
    return [example['scene'] for example in examples], [example[modality] for example in examples]


def to_pixels(values):
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def test_every_scene_is_read_exactly_from_its_image():
    rng = np.random.default_rng(0)
    images = [render.render_image(scene, rng, 32) for scene in all_scenes()]
    assert set(accuracy('image', all_scenes(), images).values()) == {1.0}


@pytest.mark.parametrize(('modality', 'count'), [('video', 400), ('audio', 600), ('text', 500)])
def test_clean_scenes_are_read_exactly(modality, count):
    assert set(accuracy(modality, *draw(modality, count)).values()) == {1.0}


@pytest.mark.parametrize('side', [24, 64])
def test_other_picture_sizes_are_read_exactly(side):
    examples = list(World(4, 100, ('image', 'video'), image_size=side, video_size=side))
    scenes = [example['scene'] for example in examples]
    for modality in ('image', 'video'):
        contents = [example[modality] for example in examples]
        assert set(accuracy(modality, scenes, contents).values()) == {1.0}


def test_other_sound_rates_and_lengths_are_read_exactly():
    for example in World(4, 60, ('audio',), audio_rate=16000, audio_seconds=0.8):
        reading = read_audio(example['audio'], rate=16000)
        assert reading == {name: example['scene'].indices[name] for name in DETERMINED['audio']}


@pytest.mark.parametrize(
    ('blur', 'noise', 'floor'), [(1.0, 0, 1.0), (1.3, 0, 0.99), (0, 25, 1.0), (0.8, 20, 0.98)]
)
def test_images_are_read_through_blur_and_noise(blur, noise, floor):
    scenes, images = draw('image', 400)
    rng = np.random.default_rng(1)
    damaged = [
        to_pixels(gaussian_filter(x.astype(float), (blur, blur, 0)) + rng.normal(0, noise, x.shape))
        for x in images
    ]
    assert min(accuracy('image', scenes, damaged).values()) >= floor


def test_films_are_read_through_blur_and_noise():
    scenes, films = draw('video', 150)
    rng = np.random.default_rng(1)
    damaged = [
        to_pixels(gaussian_filter(x.astype(float), (0.8, 0.8, 0.8, 0)) + rng.normal(0, 15, x.shape))
        for x in films
    ]
    assert min(accuracy('video', scenes, damaged).values()) >= 0.98


def test_sounds_are_read_through_noise_and_a_wrong_pitch():
    scenes, sounds = draw('audio', 200)
    rng = np.random.default_rng(1)
    noisy = [sound + rng.normal(0, 0.02, sound.shape) for sound in sounds]
    assert min(accuracy('audio', scenes, noisy).values()) >= 0.98
    phases = np.zeros(3, np.float32)
    detuned = [render.tone(scene, phases, 0.5, 4000, 8000) for scene in scenes]
    assert min(accuracy('audio', scenes, detuned).values()) >= 0.98


class MelVocoder:
    """Log-mel spectra of 64 bands (512 samples, hop 128, 8 kHz) and their Griffin-Lim inversion."""

    window = np.hanning(513)[:-1]
    hop, samples = 128, 4000

    def __init__(self):
        top = 2595 * np.log10(1 + 4000 / 700)
        edges = 700 * (10 ** (np.linspace(0, top, 66) / 2595) - 1)
        low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
        hertz = np.fft.rfftfreq(512, 1 / 8000)
        rising, falling = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
        self.filters = np.maximum(0, np.minimum(rising, falling))

    def spectrum(self, sounds):
        padded = np.pad(sounds, ((0, 0), (256, 256)))
        frames = np.lib.stride_tricks.sliding_window_view(padded, 512, axis=1)[:, :: self.hop]
        return np.fft.rfft(frames * self.window)

    def inverse_spectrum(self, spectra):
        frames = np.fft.irfft(spectra) * self.window
        count = frames.shape[1]
        sounds, weights = np.zeros((len(frames), count + 3, 128)), np.zeros((count + 3, 128))
        for part in range(4):
            columns = slice(128 * part, 128 * (part + 1))
            sounds[:, part : part + count] += frames[:, :, columns]
            weights[part : part + count] += self.window[columns] ** 2
        sounds = (sounds / np.maximum(weights, 1e-3)).reshape(len(frames), -1)
        return sounds[:, 256 : 256 + self.samples]

    def log_mel(self, sounds):
        return np.log(np.maximum(np.abs(self.spectrum(sounds)) @ self.filters.T, 1e-3))

    def invert(self, log_mel, rounds=12):
        mel = np.exp(log_mel)
        magnitude = mel @ self.filters
        for _ in range(20):  # multiplicative updates of a non-negative least squares
            again = magnitude @ self.filters.T @ self.filters
            magnitude *= (mel @ self.filters) / np.maximum(again, 1e-8)
        phase = np.exp(2j * np.pi * np.random.default_rng(0).random(magnitude.shape))
        for _ in range(rounds):
            spectra = self.spectrum(self.inverse_spectrum(magnitude * phase))
            phase = spectra / np.maximum(np.abs(spectra), 1e-8)
        return self.inverse_spectrum(magnitude * phase)


@pytest.mark.parametrize('damage', ['none', 'half the frames', 'noise of half a neper'])
def test_sounds_are_read_after_a_mel_vocoder(damage):
    scenes, sounds = draw('audio', 80)
    vocoder = MelVocoder()
    log_mel = vocoder.log_mel(np.array(sounds))
    if damage == 'half the frames':
        halves = log_mel[:, :32].reshape(len(scenes), 16, 2, 64).mean(2)
        log_mel[:, :32] = np.repeat(halves, 2, axis=1)
    if damage == 'noise of half a neper':
        log_mel += 0.5 * np.random.default_rng(2).standard_normal(log_mel.shape)
    assert min(accuracy('audio', scenes, vocoder.invert(log_mel)).values()) >= 0.985


@pytest.mark.parametrize('level', [0, 16, 255])
def test_plain_pictures_read_as_nothing(level):
    film = np.full((8, 32, 32, 3), level, np.uint8)
    assert read_image(film[0]) == NOTHING['image']
    assert read_video(film) == NOTHING['video']


def test_pictures_of_noise_or_of_two_shapes_read_as_nothing():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert read_image(noise) == NOTHING['image']
    one, other = (
        render.render_image(Scene(0, 1, 1, position, 0), np.random.default_rng(0), 32)
        for position in (0, 8)
    )
    assert read_image(np.maximum(one, other)) == NOTHING['image']


def test_silence_noise_and_fragments_read_as_nothing():
    rng = np.random.default_rng(0)
    tone = render.tone(Scene(0, 0, 1, 0, 0), np.zeros(3, np.float32), 0.0, 4000, 8000)
    nothing = [np.zeros(4000), rng.normal(0, 0.2, 4000), tone[:100], 0.01 * tone, tone * np.nan]
    for sound in nothing:
        assert read_audio(sound) == NOTHING['audio']
