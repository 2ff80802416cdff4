"""The scorer of the world on planted generators: the world itself, a shuffled one, and ones with one fault."""

from dataclasses import replace

import numpy as np
import pytest
from ml_collections import ConfigDict

from vqdit.data.world import World
from vqdit.data.world_captions import caption_entropy, plain_caption
from vqdit.data.world_render import render_audio, render_image
from vqdit.data.world_scenes import ATTRIBUTES, conditional
from vqdit.diffusion.clock import Task
from vqdit.evaluation.distance import total_variation
from vqdit.evaluation.world import WorldScorer, conditional_distance, scene_attributes, shown_by

SCORER = WorldScorer(ConfigDict({'data': {'audio': {'rate': 8000, 'seconds': 0.5}}}))
COUNT = 300


@pytest.fixture(scope='module')
def examples():
    world = World(seed=1, size=COUNT, modalities=('image', 'audio', 'text'))
    return [world[index] for index in range(COUNT)]


def score(task, examples, **generated):
    rows = SCORER.score(Task.parse(task), examples, generated)
    assert all(row.task == task and row.count == len(examples) for row in rows)
    return {row.metric: row for row in rows}


def values(rows):
    return {metric: row.value for metric, row in rows.items()}


def redrawn(examples, **attributes):
    """The scenes with some attributes drawn anew from `attributes[name](scene)`."""
    rng = np.random.default_rng(5)
    scenes = [example['scene'] for example in examples]
    for name, probabilities in attributes.items():
        scenes = [replace(s, **{name: int(rng.choice(len(ATTRIBUTES[name]), p=probabilities(s)))}) for s in scenes]
    return scenes


def images(scenes):
    rng = np.random.default_rng(6)
    return [render_image(scene, rng, 32) for scene in scenes]


def position_by_table(scene):
    return conditional({'size': scene.size, 'shape': scene.shape}, 'position')


def test_the_world_itself_is_perfect(examples):
    rows = score('audio->image', examples, image=images(redrawn(examples, position=position_by_table)))
    distance = rows.pop('position distance')
    assert values(rows) == {
        'shape accuracy': 1, 'colour accuracy': 1, 'size accuracy': 1, 'attribute accuracy': 1, 'all attributes': 1,
    }  # fmt: skip
    assert all(row.ceiling == 1 and row.unit == 'fraction' for row in rows.values())
    assert distance.unit == 'total variation'
    assert distance.value < 1.5 * distance.ceiling < 0.15


def test_every_reader_serves_as_scorer(examples):
    rng = np.random.default_rng(0)
    sounds = [render_audio(example['scene'], rng, 4000, 8000) for example in examples]
    assert values(score('text->audio', examples, audio=sounds))['all attributes'] == 1
    captions = [plain_caption(example['scene']) for example in examples]
    rows = values(score('image->text', examples, text=captions))
    assert rows['all attributes'] == 1 and 'motion accuracy' not in rows and 'position accuracy' in rows


def test_a_shuffled_generator_is_right_by_chance(examples):
    shuffled = [example['image'] for example in examples[1:] + examples[:1]]
    rows = score('text->image', examples, image=shuffled)
    scenes = scene_attributes(examples)
    for name in ('shape', 'colour', 'size', 'position'):
        by_chance = np.mean(scenes[name] == np.roll(scenes[name], -1))
        assert rows[f'{name} accuracy'].value == pytest.approx(by_chance)
        assert rows[f'{name} accuracy'].ceiling == 1
    assert rows['all attributes'].value < 0.03
    mean = np.mean([rows[f'{name} accuracy'].value for name in ('shape', 'colour', 'size', 'position')])
    assert rows['attribute accuracy'].value == pytest.approx(mean)
    assert not [metric for metric in rows if 'distance' in metric]


def test_a_sampler_that_ignores_the_condition_is_seen(examples):
    """Positions drawn as if every shape had the other size: right marginally, wrong given what is heard."""
    swapped = redrawn(examples, position=lambda scene: conditional({'size': 1 - scene.size}, 'position'))
    row = score('audio->image', examples, image=images(swapped))['position distance']
    truth = [conditional({'size': size}, 'position') for size in (0, 1)]
    apart = total_variation(truth[0], truth[1])
    assert row.value == pytest.approx(apart, abs=0.06) and row.value > 2.5 * row.ceiling


def test_a_sampler_without_variety_is_seen(examples):
    centre = [replace(example['scene'], position=4) for example in examples]
    row = score('audio->image', examples, image=images(centre))['position distance']
    shares = np.bincount(scene_attributes(examples)['size']) / COUNT
    missed = sum(share * (1 - conditional({'size': size}, 'position')[4]) for size, share in enumerate(shares))
    assert row.value == pytest.approx(missed)


def test_what_cannot_be_read_is_wrong_and_far_away(examples):
    noise = list(np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), np.uint8))
    rows = score('audio->image', examples, image=noise)
    assert rows['attribute accuracy'].value < 0.01 and rows['position distance'].value > 0.99


def test_pools_are_the_distinct_conditionals():
    """Motion depends on the shape alone: with all shapes equal and motions as the table says, the distance is 0."""
    truth = conditional({'shape': 2}, 'motion')
    motions = np.repeat(np.arange(5), np.round(100 * truth).astype(int))
    known = {'shape': np.full(100, 2), 'colour': np.arange(100) % 6, 'size': np.arange(100) % 2}
    distance, noise = conditional_distance('motion', motions, known)
    assert distance == pytest.approx(0, abs=1e-9)
    assert 0.04 < noise < 0.09  # one pool of 100, not twelve of about 8


def test_joint_generation_is_scored_by_marginals_and_agreement(examples):
    captions = [plain_caption(example['scene']) for example in examples]
    pictures = [example['image'] for example in examples]
    rows = score('->image,text', examples, image=pictures, text=captions)
    assert values(rows)['image and text agree'] == 1
    assert rows['text motion distance'].value < 2 * rows['text motion distance'].ceiling
    assert rows['image shape distance'].value < 2 * rows['image shape distance'].ceiling
    rows = score('->image,text', examples, image=pictures, text=captions[1:] + captions[:1])
    assert values(rows)['image and text agree'] < 0.05
    unread = score('->image,text', examples, image=pictures, text=['nonsense'] * COUNT)
    assert values(unread)['image and text agree'] == 0


def test_several_given_modalities_determine_together():
    assert shown_by(('image',)) == ('shape', 'colour', 'size', 'position')
    assert shown_by(('image', 'audio')) == ('shape', 'colour', 'size', 'position', 'motion')
    assert shown_by(()) == ()


def test_reconstruction_is_compared_with_the_scene(examples):
    pictures = [example['image'] for example in examples]
    rows = SCORER.score_reconstruction('image', examples, pictures)
    assert {row.value for row in rows} == {1.0} and {row.task for row in rows} == {'reconstruct image'}
    blank = [np.zeros_like(picture) for picture in pictures]
    assert {row.value for row in SCORER.score_reconstruction('image', examples, blank)} == {0.0}


def test_entropy_is_that_of_the_caption():
    assert SCORER.entropy(Task.parse('image->text')) == caption_entropy(shown_by(('image',)))
    assert SCORER.entropy(Task.parse('->text')) > SCORER.entropy(Task.parse('audio->text'))
    assert SCORER.entropy(Task.parse('text->image')) is None


def test_a_config_without_audio_settings_has_the_default_rate(examples):
    scorer = WorldScorer(ConfigDict({'data': {'source': 'world'}}))
    rows = scorer.score_reconstruction('audio', examples[:20], [example['audio'] for example in examples[:20]])
    assert {row.value for row in rows} == {1.0}
