"""`load`: the registry, the config schema, and what is done to the training split alone."""

import itertools
import json

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from vqdit.data import load
from vqdit.errors import UserError

WORLD = {'source': 'world', 'train_examples': 6, 'test_examples': 3}


def write_letters(root, count=6):
    """Pictures of two classes in a folder, the split told by a column."""
    rows = ['file_name,label,split']
    for index, split in itertools.product(range(count), ('train', 'test')):
        name = f'{split}-{index}.png'
        Image.new('L', (8, 8), 10 * index).save(root / name)
        rows.append(f'{name},{"ab"[index % 3 == 0]},{split}')
    (root / 'metadata.csv').write_text('\n'.join(rows))
    return {'source': 'folder', 'root': str(root), 'image': {'size': 8, 'channels': 1}}


def test_world_by_a_locked_config():
    config = ConfigDict(WORLD).lock()
    train, test = load(config, 'train'), load(config, 'test', ('text',))
    assert len(train) == 6 and len(test) == 3
    assert set(train[0]) == {'image', 'audio', 'text', 'scene'} and set(test[0]) == {
        'text',
        'scene',
    }


@pytest.mark.parametrize('name', [None, 'wrld', 'vqdit.data.world.World'])
def test_unknown_source(name):
    with pytest.raises(UserError, match='one of world, tfds, folder, pairs'):
        load({'source': name}, 'train')
    with pytest.raises(UserError, match='Did you mean "world"'):
        load({'source': 'wrld'}, 'train')


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'image': {'sise': 32}}, 'config.data.image.sise is not a setting.*"size"'),
        ({'audio': {'rate': 'fast'}}, 'config.data.audio.rate'),
        ({'augment': {'copies': 0}}, 'augment.copies=0'),
        ({'augment': {'shift': 2}}, 'config.data.augment.shift'),
        ({'balance': {'power': 0.5}}, 'World has no "label"'),
        ({'seed': -1}, 'config.data.seed'),
    ],
)
def test_mistakes_in_the_config(change, words):
    with pytest.raises(UserError, match=words):
        load(ConfigDict({**WORLD, **change}), 'train')


def test_only_the_training_split_is_augmented_and_balanced(tmp_path):
    config = write_letters(tmp_path)
    changed = config | {'augment': {'copies': 3, 'image_flip': 0.5}, 'balance': {'key': 'label'}}
    assert len(load(changed, 'train')) == 18
    plain, test = load(config, 'test'), load(changed, 'test')
    assert len(test) == len(plain) == 6
    for index in range(6):
        np.testing.assert_array_equal(test[index]['image'], plain[index]['image'])


def test_pairs_and_what_parts_inherit(tmp_path):
    config = write_letters(tmp_path)
    parts = {'audio': {'source': 'world'}, 'image': {'source': 'folder'}}
    pairs = ConfigDict({**config, 'source': 'pairs', 'parts': {'image': {'source': 'folder'}}})
    source = load(pairs, 'train')
    assert source[1]['text'] == source[1]['label_name'] and source[1]['image'].shape == (8, 8, 1)
    assert 'image' not in load(pairs, 'train', ('text',))[0]
    with pytest.raises(UserError, match='has no "label"'):
        load({'source': 'pairs', 'root': str(tmp_path), 'parts': parts}, 'train', anchor='image')


@pytest.mark.parametrize(
    ('parts', 'words'),
    [
        ({}, 'config.data.parts is empty'),
        ({'imge': {'source': 'world'}}, 'config.data.parts.imge is no modality.*"image"'),
        ({'image': {'sorce': 'world'}}, 'config.data.parts.image.sorce.*"source"'),
        ({'image': {'source': 'pairs'}}, 'config.data.parts is empty'),
    ],
)
def test_mistakes_in_parts(parts, words):
    with pytest.raises(UserError, match=words):
        load({'source': 'pairs', 'parts': parts}, 'train')


def test_modalities_and_anchors_that_are_no_part(tmp_path):
    config = write_letters(tmp_path) | {'source': 'pairs', 'parts': {'image': {'source': 'folder'}}}
    with pytest.raises(UserError, match=r'config\.data\.parts has no "audio"'):
        load(config, 'train', ('audio',))
    with pytest.raises(UserError, match=r'config\.data\.parts has no "audio"'):
        load(config, 'train', anchor='audio')


def test_digits(shared_data):
    config = ConfigDict(
        {
            'source': 'pairs',
            'root': str(shared_data / 'tfds'),
            'image': {'size': 32, 'channels': 1, 'fit': 'pad'},
            'audio': {'rate': 8000, 'seconds': 0.5, 'trim_decibels': 40.0},
            'parts': {
                'image': {'source': 'tfds', 'name': 'mnist'},
                'audio': {'source': 'tfds', 'name': 'spoken_digit', 'exclude_speakers': ('theo',)},
            },
        }
    )
    test = load(config, 'test')
    assert len(test) == 10_000  # the pictures are the anchor
    example = test[123]
    assert example['image'].shape == (32, 32, 1) and example['audio'].shape == (4000,)
    assert example['name'].startswith(f'{example["label"]}_') and example['recording'] < 5
    spoken = load(config, 'test', ('audio', 'text'), anchor='audio')
    assert len(spoken) == 250 and len(load(config, 'excluded', anchor='audio')) == 500
    names = [spoken[index]['name'] for index in range(250)]
    assert len(set(names)) == 250
    saved = json.loads(config.to_json())
    assert load(saved, 'test')[123]['name'] == example['name']
    train = load(config, 'train', ('audio',))
    assert len(train) == 1800 and 'theo' not in {train[index]['speaker'] for index in range(1800)}
