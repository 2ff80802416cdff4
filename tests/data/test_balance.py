"""Balancing: the drawn frequencies of classes and of the examples within them."""

import numpy as np
import pytest

from vqdit.data.balance import Balanced, BalanceSettings
from vqdit.errors import DataError, UserError

LABELS = np.random.default_rng(0).permutation(np.repeat([3, 5, 8], [900, 90, 10]))


class Skewed:
    """A thousand examples, of three classes of very different sizes."""

    def __init__(self, labels=LABELS, copies=4):
        self.labels = np.tile(labels, copies)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {'label': int(self.labels[index]), 'place': index}

    def column(self, key):
        return self.labels


@pytest.mark.parametrize('power', [0.0, 0.5, 1.0])
def test_classes_are_drawn_by_the_power_of_their_count(power):
    balanced = Balanced(Skewed(), BalanceSettings(power=power))
    drawn = balanced.column('label')
    assert len(drawn) == len(balanced) == 4000
    weights = np.array([900, 90, 10]) ** power
    frequencies = [np.mean(drawn == label) for label in (3, 5, 8)]
    np.testing.assert_allclose(frequencies, weights / weights.sum(), atol=0.03)


def test_examples_of_a_class_are_drawn_equally():
    labels = np.array([0] * 20 + [1] * 4)
    balanced = Balanced(Skewed(labels, 200), BalanceSettings(), seed=1)
    places = np.array([balanced[index]['place'] % 24 for index in range(len(balanced))])
    counts = np.bincount(places, minlength=24)
    np.testing.assert_allclose(counts[:20] / counts[:20].mean(), 1, atol=0.35)
    np.testing.assert_allclose(counts[20:] / counts[20:].mean(), 1, atol=0.2)


def test_draws_are_a_function_of_seed_and_index():
    first, again, other = (Balanced(Skewed(), BalanceSettings(), seed) for seed in (0, 0, 1))
    assert [first[i] for i in range(50)] == [again[i] for i in reversed(range(50))][::-1]
    assert [first[i] for i in range(50)] != [other[i] for i in range(50)]
    with pytest.raises(IndexError):
        first[4000]


def test_mistakes():
    with pytest.raises(UserError, match='power'):
        BalanceSettings(power=2.0)
    with pytest.raises(DataError, match='no example'):
        Balanced(Skewed(np.array([], int)), BalanceSettings())
    with pytest.raises(UserError, match='list has no "label"'):
        Balanced([{'label': 1}], BalanceSettings())
