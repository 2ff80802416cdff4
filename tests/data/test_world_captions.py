"""The grammar of the captions: its probabilities, its entropy and its exact parser."""

import numpy as np
import pytest
from scipy.stats import chisquare

from vqdit.data.world_captions import (
    MAX_WORDS,
    caption_entropy,
    caption_probabilities,
    draw_caption,
    plain_caption,
    read_text,
    vocabulary,
)
from vqdit.data.world_scenes import ATTRIBUTES, DETERMINED, Scene, all_scenes, entropy, joint


@pytest.fixture(scope='module')
def grammar():
    """Every scene with all its captions."""
    return [(scene, caption_probabilities(scene)) for scene in all_scenes()]


def test_every_caption_parses_back_to_its_scene(grammar):
    for scene, captions in grammar:
        assert all(read_text(caption) == scene.indices for caption in captions)


def test_the_probabilities_of_each_scene_sum_to_one(grammar):
    sums = [sum(captions.values()) for _, captions in grammar]
    np.testing.assert_allclose(sums, 1, rtol=1e-12)


def test_captions_are_short_and_use_the_whole_vocabulary(grammar):
    captions = [caption.split(' ') for _, choices in grammar for caption in choices]
    assert max(len(words) for words in captions) == MAX_WORDS == 12
    assert sorted({word for words in captions for word in words}) == list(vocabulary())
    assert len(vocabulary()) == 35


def test_entropies_agree_with_enumeration(grammar):
    wording, marginal = 0.0, 0.0
    for (_, captions), weight in zip(grammar, joint().ravel()):
        p = np.array(list(captions.values()))
        wording -= weight * np.sum(p * np.log(p))
        marginal -= np.sum(weight * p * np.log(weight * p))
    assert np.isclose(caption_entropy(given=ATTRIBUTES), wording, rtol=1e-12)
    assert np.isclose(caption_entropy(), marginal, rtol=1e-12)
    image = DETERMINED['image']
    assert np.isclose(caption_entropy(image), entropy('motion', image) + wording, rtol=1e-12)


def test_drawn_captions_follow_their_probabilities():
    scene, count = Scene(shape=0, colour=0, size=0, position=4, motion=1), 5000
    expected = caption_probabilities(scene)
    rng = np.random.default_rng(3)
    drawn = [draw_caption(scene, rng) for _ in range(count)]
    observed = [drawn.count(caption) for caption in expected]
    assert sum(observed) == count
    assert chisquare(observed, count * np.array(list(expected.values()))).pvalue > 1e-3


def test_the_plain_caption_is_the_most_probable(grammar):
    for scene, captions in grammar[::37]:
        assert plain_caption(scene) == max(captions, key=captions.__getitem__)
    still, right = Scene(0, 0, 0, 0, 0), Scene(0, 0, 0, 0, 2)
    assert plain_caption(still) == 'a small red circle at the top left'
    assert plain_caption(right) == 'a small red circle at the top left moving right'


def test_case_and_spacing_do_not_matter():
    expected = Scene(1, 2, 1, 7, 0).indices
    assert read_text(' A big  blue\tbox at the bottom\n') == expected


@pytest.mark.parametrize(
    'caption',
    [
        '',
        'a circle',
        'a small red red circle at the top left',
        'a small red circle at the top left moving',
        'a small red circle at the top left moving right moving right',
        'a small orange circle at the top left',
        'small red circle at the top left',
        'a small red circle at the bottom top',
        'a small red circle at the topleft',
    ],
)
def test_what_the_grammar_cannot_say_reads_as_nothing(caption):
    assert read_text(caption) == dict.fromkeys(ATTRIBUTES)
