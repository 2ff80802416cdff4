"""Augmentation: exact where it can be, within bounds elsewhere, reproducible always."""

import numpy as np
import pytest

from vqdit.data.augment import Augmented, AugmentSettings, augment, augment_audio, augment_pixels
from vqdit.errors import UserError

RATE = 8000
PIXELS = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
SOUND = np.sin(np.arange(800) / 7).astype(np.float32) * np.float32(0.5)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_nothing_asked_nothing_changed():
    example = {'image': PIXELS, 'audio': SOUND, 'text': 'red', 'label': 3}
    changed = augment(example, rng(), AugmentSettings(), RATE)
    assert changed['text'] == 'red' and changed['label'] == 3
    np.testing.assert_array_equal(changed['image'], PIXELS)
    np.testing.assert_array_equal(changed['audio'], SOUND)


def test_a_shift_moves_the_inside_and_repeats_the_border():
    settings, seen = AugmentSettings(image_shift=2), set()
    padded = np.pad(PIXELS, ((2, 2), (2, 2), (0, 0)), mode='edge')
    for seed in range(60):
        shifted = augment_pixels(PIXELS, rng(seed), settings)
        moves = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if np.array_equal(shifted, padded[down : down + 8, right : right + 8])
        ]
        assert len(moves) == 1
        seen.add(moves[0])
    assert len(seen) > 15


def test_flip_is_exact_and_films_move_together():
    flipped = augment_pixels(PIXELS, rng(), AugmentSettings(image_flip=1.0))
    np.testing.assert_array_equal(flipped, PIXELS[:, ::-1])
    film = np.stack([PIXELS] * 4)
    settings = AugmentSettings(image_shift=3, image_flip=0.5)
    for seed in range(5):
        moved = augment_pixels(film, rng(seed), settings)
        assert all(np.array_equal(frame, moved[0]) for frame in moved)
        np.testing.assert_array_equal(moved[0], augment_pixels(PIXELS, rng(seed), settings))


def test_gain_is_within_its_decibels_and_never_clips():
    ratios = []
    for seed in range(50):
        louder = augment_audio(SOUND, rng(seed), AugmentSettings(audio_gain=6.0), RATE)
        ratios.append(20 * np.log10(np.abs(louder).max() / np.abs(SOUND).max()))
        np.testing.assert_allclose(
            louder * np.abs(SOUND).max(), SOUND * np.abs(louder).max(), atol=1e-6
        )
    assert -6.01 < min(ratios) < -4 and 4 < max(ratios) < 6.03
    loud = augment_audio(SOUND, rng(3), AugmentSettings(audio_gain=40.0, audio_noise=0.1), RATE)
    assert np.abs(loud).max() <= 1 and loud.dtype == np.float32


def test_a_time_shift_moves_a_click():
    click = np.zeros(800, np.float32)
    click[400] = 1
    places = []
    for seed in range(30):
        moved = augment_audio(click, rng(seed), AugmentSettings(audio_shift=0.02), RATE)
        places.append(np.sum(moved * np.arange(800)) / moved.sum())
        np.testing.assert_allclose(moved.sum(), 1, atol=1e-5)
    assert 240 <= min(places) < 300 and 500 < max(places) <= 560


def test_speed_changes_the_pitch():
    tone = np.sin(2 * np.pi * 500 * np.arange(4000) / RATE).astype(np.float32)
    pitches = []
    for seed in range(30):
        other = augment_audio(tone, rng(seed), AugmentSettings(audio_speed=0.1), RATE)
        pitches.append(2 * np.argmax(np.abs(np.fft.rfft(other[:3600], 4000))))
    assert 446 <= min(pitches) < 470 and 530 < max(pitches) <= 554


def test_noise_has_its_deviation():
    silence = np.zeros(20_000, np.float32)
    noise = augment_audio(silence, rng(), AugmentSettings(audio_noise=0.01), RATE)
    assert abs(noise.std() - 0.01) < 3e-4


class Numbers:
    """Five examples; the label of each is its place."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {'label': index, 'image': PIXELS}

    def column(self, key):
        return np.arange(5)


def test_copies_differ_and_are_reproducible():
    settings = AugmentSettings(copies=3, image_shift=3)
    augmented = Augmented(Numbers(), settings, RATE, seed=4)
    assert len(augmented) == 15
    assert [example['label'] for example in augmented] == augmented.column('label').tolist()
    assert [example['label'] for example in augmented] == [0, 1, 2, 3, 4] * 3
    pictures = {augmented[index]['image'].tobytes() for index in range(15)}
    assert len(pictures) > 8
    again = Augmented(Numbers(), settings, RATE, seed=4)
    np.testing.assert_array_equal(augmented[11]['image'], again[11]['image'])


@pytest.mark.parametrize(
    'wrong', [{'copies': 0}, {'image_flip': 1.5}, {'audio_speed': 1.0}, {'audio_noise': -0.1}]
)
def test_wrong_settings(wrong):
    with pytest.raises(UserError, match='augment.' + next(iter(wrong))):
        AugmentSettings(**wrong)
