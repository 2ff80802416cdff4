"""The built-in world as a source."""

import numpy as np
import pytest

from vqdit.data.preprocess import read_formats
from vqdit.data.sources.world import WorldSettings, open_world
from vqdit.errors import UserError

SETTINGS = WorldSettings(train_examples=20, test_examples=5, seed=3)
FORMATS = read_formats({'image': {'size': 16}, 'audio': {'rate': 4000, 'seconds': 0.25}})


def test_splits_have_their_sizes_and_nothing_in_common():
    train, test = (open_world(SETTINGS, split, FORMATS, ('image',)) for split in ('train', 'test'))
    assert len(train) == 20 and len(test) == 5
    pictures = {example['image'].tobytes() for source in (train, test) for example in source}
    assert len(pictures) == 25
    next_train = open_world(WorldSettings(seed=4), 'train', FORMATS, ('image',))
    assert next_train[0]['image'].tobytes() not in pictures


def test_formats_are_followed():
    example = open_world(SETTINGS, 'train', FORMATS)[0]
    assert example['image'].shape == (16, 16, 3) and example['image'].dtype == np.uint8
    assert example['audio'].shape == (1000,) and example['audio'].dtype == np.float32
    assert isinstance(example['text'], str)


def test_mistakes():
    with pytest.raises(UserError, match='Did you mean "train"'):
        open_world(SETTINGS, 'trian', FORMATS)
    with pytest.raises(UserError, match=r'image\.channels=1'):
        open_world(SETTINGS, 'train', read_formats({'image': {'channels': 1}}))
    with pytest.raises(UserError, match='seed'):
        WorldSettings(seed=-1)
