"""Pairing: each anchor once, partners of the same key at random but reproducibly."""

import numpy as np
import pytest

from vqdit.data.sources.pairs import Paired, PairSettings
from vqdit.errors import DataError, UserError


class Toy:
    """Examples whose value of `modality` is (label, place)."""

    def __init__(self, modality, labels):
        self.modality, self.labels = modality, np.array(labels)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        label = int(self.labels[index])
        example = {'label': label, 'label_name': f'class {label}', self.modality: (label, index)}
        return example | ({'speaker': f'speaker {index}'} if self.modality == 'audio' else {})

    def column(self, key):
        return self.labels


IMAGES = Toy('image', [0, 1, 2] * 10)
SOUNDS = Toy('audio', [2, 2, 1, 0, 0, 0, 1, 2])


def pair(seed=0, anchor=None, **options):
    return Paired({'image': IMAGES, 'audio': SOUNDS}, PairSettings(seed=seed), anchor, **options)


def test_each_anchor_once_and_partners_of_its_label():
    for anchor, source in (('image', IMAGES), ('audio', SOUNDS)):
        paired = pair(anchor=anchor)
        assert len(paired) == len(source)
        for index, example in enumerate(paired):
            assert example[anchor] == (example['label'], index)
            assert example['image'][0] == example['audio'][0] == example['label']
            assert example['speaker'] == f'speaker {example["audio"][1]}'
    np.testing.assert_array_equal(pair(anchor='audio').column('label'), SOUNDS.labels)


def test_partners_are_a_function_of_seed_and_index():
    partners = [[example['audio'] for example in pair(seed)] for seed in (0, 0, 1)]
    assert partners[0] == partners[1] != partners[2]
    assert pair()[17] == pair()[17]


def test_all_partners_are_drawn_about_equally():
    many = Paired(
        {'image': Toy('image', [0] * 3000), 'audio': SOUNDS.__class__('audio', [0, 0, 0])}
    )
    counts = np.bincount([example['audio'][1] for example in many], minlength=3)
    assert np.abs(counts / 3000 - 1 / 3).max() < 0.05


def test_partner_of_a_modality_does_not_depend_on_the_others():
    three = {'image': IMAGES, 'audio': SOUNDS, 'video': Toy('video', [0, 1, 2, 2])}
    all_three = Paired(three, anchor='image')
    assert [x['audio'] for x in all_three] == [x['audio'] for x in pair(anchor='image')]


def test_text_is_the_name_of_the_label():
    assert pair(with_text=True)[4]['text'] == 'class 1'
    assert 'text' not in pair()[4]


def test_labels_that_one_part_lacks_are_named():
    with pytest.raises(DataError, match=r'the audio part has no label 1, 2'):
        Paired({'image': IMAGES, 'audio': Toy('audio', [0])})
    with pytest.raises(DataError, match=r'the image part has no label 9'):
        Paired({'image': Toy('image', [0]), 'audio': Toy('audio', [0, 9])})


def test_mistakes():
    with pytest.raises(UserError, match='Did you mean "audio"'):
        pair(anchor='adio')
    with pytest.raises(IndexError):
        pair()[30]
