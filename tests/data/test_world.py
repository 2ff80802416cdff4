"""The world as a dataset: random access, purity, independence of what else is rendered."""

import pickle

import numpy as np
import pytest

from vqdit.data.world import World, read_text
from vqdit.errors import UserError

ALL = ('image', 'video', 'audio', 'text')


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


def test_an_example_has_what_was_asked_for():
    example = World(seed=0, size=4, modalities=ALL)[3]
    assert set(example) == {*ALL, 'scene'}
    assert (example['image'].shape, example['image'].dtype) == ((32, 32, 3), np.uint8)
    assert (example['video'].shape, example['video'].dtype) == ((8, 32, 32, 3), np.uint8)
    assert (example['audio'].shape, example['audio'].dtype) == ((4000,), np.float32)
    assert read_text(example['text']) == example['scene'].indices


def test_sizes_and_lengths_follow_the_arguments():
    world = World(0, 1, ALL, 48, 16, 5, 16000, 0.25)
    shapes = [np.shape(world[0][name]) for name in ALL]
    assert shapes == [(48, 48, 3), (5, 16, 16, 3), (4000,), ()]


def test_an_example_is_a_function_of_seed_and_index_alone():
    world = World(3, 100, ALL)
    first = world[17]
    assert_same(first, [world[i] for i in (5, 17, 99)][1])
    assert_same(first, World(3, 18, ALL)[np.int64(17)])
    assert_same(first, pickle.loads(pickle.dumps(world))[17])


@pytest.mark.parametrize('name', ALL)
def test_a_modality_does_not_depend_on_the_others(name):
    whole, alone = World(3, 20, ALL), World(3, 20, (name,))
    for index in range(20):
        example = whole[index]
        assert_same({name: example[name], 'scene': example['scene']}, alone[index])


def test_image_is_the_first_frame_of_the_video():
    example = World(9, 1, ('video', 'image'))[0]
    np.testing.assert_array_equal(example['image'], example['video'][0])


def test_seeds_and_indices_give_different_examples():
    images = [World(seed, 10, ('image',))[i]['image'] for seed in range(3) for i in range(10)]
    assert len({image.tobytes() for image in images}) == 30


def test_length_iteration_and_range():
    world = World(0, 5, ('text',))
    assert len(world) == len(list(world)) == 5
    for index in (5, -1):
        with pytest.raises(IndexError, match=r'outside of 0 \.\. 4'):
            world[index]


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r'no modality "vidoe".*Did you mean "video"'):
        World(0, 1, ('vidoe',))
    with pytest.raises(UserError, match='seed -1'):
        World(-1, 1)
