"""The joint table and what is computed from it, against plain enumeration."""

import itertools

import numpy as np
import pytest
from scipy.stats import chisquare

from vqdit.data.world_scenes import (
    ATTRIBUTES,
    DETERMINED,
    Scene,
    all_scenes,
    conditional,
    draw_scene,
    entropy,
    joint,
)
from vqdit.errors import UserError


def enumerated(names):
    """Probability of every combination of `names`, summed scene by scene."""
    table = {}
    for scene, probability in zip(all_scenes(), joint().ravel().tolist()):
        key = tuple(scene.indices[name] for name in names)
        table[key] = table.get(key, 0.0) + probability
    return table


def test_the_joint_is_a_distribution_over_every_scene():
    assert joint().shape == (4, 6, 2, 9, 5)
    assert joint().dtype == np.float64
    assert joint().min() > 0
    assert np.isclose(joint().sum(), 1, rtol=0, atol=1e-14)
    assert len(all_scenes()) == len(set(all_scenes())) == joint().size


def test_every_value_is_common_and_no_attribute_is_uniform():
    for name, values in ATTRIBUTES.items():
        marginal = conditional({}, name)
        assert marginal.min() >= 0.05
        assert np.abs(marginal - 1 / len(values)).max() > 0.02


def test_neither_uniform_nor_marginal_positions_pass_for_the_conditional():
    sizes, marginal = conditional({}, 'size'), conditional({}, 'position')
    truths = [conditional({'size': size}, 'position') for size in range(2)]
    for guess in (np.full(9, 1 / 9), marginal):
        distances = [np.abs(truth - guess).sum() / 2 for truth in truths]
        assert np.dot(sizes, distances) > 0.25


def test_the_table_cannot_be_changed():
    with pytest.raises(ValueError, match='read-only'):
        joint()[0] = 0


def test_conditionals_agree_with_enumeration():
    givens = [{}, {'size': 1}, {'shape': 2, 'size': 0}, {'position': 4, 'motion': 3, 'colour': 5}]
    for given, of in itertools.product(givens, ATTRIBUTES):
        if of in given:
            continue
        table = enumerated([*given, of])
        expected = np.array([table[*given.values(), i] for i in range(len(ATTRIBUTES[of]))])
        np.testing.assert_allclose(conditional(given, of), expected / expected.sum(), rtol=1e-12)


def test_the_factors_of_the_joint():
    heard = {'shape': 1, 'colour': 3, 'motion': 2}
    for size in range(2):
        known = conditional({**heard, 'size': size}, 'position')
        np.testing.assert_allclose(known, conditional({'size': size}, 'position'), rtol=1e-12)


def test_entropies_agree_with_enumeration():
    cases = [('shape', ()), ('position', ('size',)), (('colour', 'motion'), ('shape', 'size'))]
    for of, given in cases:
        of_names = [of] if isinstance(of, str) else list(of)
        both, condition = enumerated([*given, *of_names]), enumerated(given)
        expected = -sum(p * np.log(p / condition[key[: len(given)]]) for key, p in both.items())
        assert np.isclose(entropy(of, given), expected, rtol=1e-12)


def test_what_a_modality_shows_and_what_it_leaves_add_up_to_the_scene():
    whole = entropy(ATTRIBUTES)
    for shown in DETERMINED.values():
        assert np.isclose(entropy(shown) + entropy(ATTRIBUTES, given=shown), whole)
    assert entropy('position', DETERMINED['audio']) > 1.5
    assert entropy('shape', ('shape',)) == 0


def test_drawn_scenes_follow_the_joint():
    rng, count = np.random.default_rng(20), 20_000
    scenes = np.array([list(draw_scene(rng).indices.values()) for _ in range(count)])
    for pair in itertools.combinations(range(5), 2):
        others = tuple(axis for axis in range(5) if axis not in pair)
        expected = count * joint().sum(axis=others)
        observed = np.zeros_like(expected)
        np.add.at(observed, tuple(scenes[:, pair].T), 1)
        assert chisquare(observed.ravel(), expected.ravel()).pvalue > 1e-3


def test_a_scene_knows_the_names_of_its_values():
    scene = Scene(shape=3, colour=0, size=1, position=8, motion=2)
    assert scene.names == {
        'shape': 'cross',
        'colour': 'red',
        'size': 'large',
        'position': 'bottom right',
        'motion': 'right',
    }


def test_an_unknown_attribute_is_named_with_the_nearest_known():
    with pytest.raises(UserError, match=r'no attribute "color".*Did you mean "colour"'):
        conditional({'color': 0}, 'shape')
    with pytest.raises(UserError, match='Did you mean "position"'):
        entropy('positon')
