"""Judges learn what they can, see what their augmentation says, and reach their accuracy on real data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.data import load
from vqdit.evaluation import judges
from vqdit.tokenizers.spectrogram import LogMel


class Made:
    """A dataset of arrays."""

    def __init__(self, modality, items, labels):
        self._modality, self._items, self._labels = modality, items, labels

    def __len__(self):
        return len(self._items)

    def __getitem__(self, index):
        return {self._modality: self._items[index], 'label': int(self._labels[index])}

    def column(self, key):
        return {'label': self._labels}[key]


def bars(count, seed):
    """Grey pictures with a bright row or a bright column somewhere."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    pictures = rng.integers(0, 100, (count, 12, 12, 1), np.uint8)
    for picture, label in zip(pictures, labels):
        place = rng.integers(3, 9)
        picture[(place,) if label else (slice(None), place)] = 255
    return Made('image', pictures, labels)


def tones(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    angle = 2 * np.pi * np.where(labels, 700, 1500)[:, None] * np.arange(1100) / 8000
    sounds = rng.uniform(0.02, 0.8, (count, 1)) * np.sin(angle + rng.uniform(0, 6, (count, 1)))
    return Made('audio', sounds.astype(np.float32), labels)


def test_picture_judge_learns_and_knows_how_well():
    judge = judges.image_judge(bars(600, 0), bars(300, 1), steps=50)
    assert judge.accuracy > 0.95 and judge.count == 300
    test = bars(300, 1)
    right = judge([test[index]['image'] for index in range(300)]) == test.column('label')
    assert right.mean() == judge.accuracy
    judge.examine(test._items, 1 - test._labels)
    assert judge.accuracy < 0.05


def test_sound_judge_learns_and_takes_any_length():
    judge = judges.sound_judge(tones(300, 0), tones(100, 1), 8000, steps=30)
    assert judge.accuracy > 0.95


def test_shift_moves_by_whole_pixels_up_to_the_most():
    x = np.tile(np.arange(36, dtype=np.float32).reshape(1, 6, 6, 1), (200, 1, 1, 1))
    moved = np.asarray(jax.jit(lambda key: judges.shift(key, x, (2, 1)))(jax.random.key(0)))
    padded = np.pad(x[0, ..., 0], ((2, 2), (1, 1)), mode='edge')
    wanted = {padded[r:r + 6, c:c + 6].tobytes() for r in range(5) for c in range(3)}
    assert {np.ascontiguousarray(picture[..., 0]).tobytes() for picture in moved} == wanted


def test_gain_and_noise_are_those_of_the_sound():
    """Raising a spectrogram by the gain is the spectrogram of the raised sound, over its floor of noise."""
    front_end = LogMel(8000, 256, 128, 40, 1024)
    sound = np.random.default_rng(0).normal(0, 0.1, (64, 1024)).astype(np.float32)

    @jax.jit
    def compare(key):
        gain = 10 ** jax.random.uniform(jax.random.split(key)[0], (64, 1), minval=-0.5, maxval=0.5)
        changed = judges.louder_and_noisier(key, front_end.analyse(sound)[..., None])
        silence = judges.louder_and_noisier(key, jnp.full((64, 4, 4, 1), -1.0))
        return front_end.analyse(sound * gain), changed[..., 0], silence

    direct, changed, silence = map(np.asarray, compare(jax.random.key(1)))
    loud = direct > 0.3
    assert loud.mean() > 0.1
    assert np.abs(changed - direct)[loud].max() < 0.2
    assert -1.01 < silence.min() < -0.8 and -0.1 < silence.max() < 0.01


def test_pieces_are_put_together_again():
    x = np.arange(2 * judges.PREDICTED_AT_ONCE + 3, dtype=np.float32)[:, None]
    sizes = []

    def double(piece):
        sizes.append(len(piece))
        return jnp.asarray(2 * piece)

    np.testing.assert_array_equal(judges.in_pieces(double, x), 2 * x)
    assert sizes == [judges.PREDICTED_AT_ONCE] * 3


@pytest.mark.slow
def test_picture_judge_on_real_digits(shared_data):
    config = {'source': 'tfds', 'root': str(shared_data / 'tfds'), 'name': 'mnist'}
    config['image'] = {'size': 28, 'channels': 1}
    judge = judges.image_judge(load(config, 'train', ('image',)), load(config, 'test', ('image',)))
    assert judge.count == 10_000 and judge.accuracy >= 0.985


@pytest.mark.slow
def test_sound_judge_on_real_digits(shared_data):
    config = {'source': 'tfds', 'root': str(shared_data / 'tfds'), 'name': 'spoken_digit', 'audio': {'seconds': 0.6}}
    judge = judges.sound_judge(load(config, 'train', ('audio',)), load(config, 'test', ('audio',)), 8000)
    assert judge.count == 250 and judge.accuracy >= 0.95
