"""Total variation, and its expected value for a perfect sampler."""

import numpy as np
import pytest

from vqdit.evaluation.distance import expected_total_variation, total_variation

UNEVEN = np.array([0.5, 0.25, 0.15, 0.1, 0.0])


def test_total_variation_by_hand():
    assert total_variation(np.array([5, 5]), np.array([0.5, 0.5])) == 0
    assert total_variation(np.array([3, 1]), np.array([0.5, 0.5])) == 0.25
    assert total_variation(np.array([0, 0, 7]), np.array([0.5, 0.5, 0.0])) == 1


def test_one_sample_misses_all_but_its_own_probability():
    assert expected_total_variation(1, UNEVEN) == pytest.approx(1 - np.sum(UNEVEN**2))


@pytest.mark.parametrize('count', [2, 10, 37, 500])
def test_expectation_is_the_mean_over_draws(count):
    draws = np.random.default_rng(0).multinomial(count, UNEVEN, size=20_000)
    mean = 0.5 * np.abs(draws / count - UNEVEN).sum(1).mean()
    assert expected_total_variation(count, UNEVEN) == pytest.approx(mean, rel=0.01)


def test_a_certain_outcome_has_no_noise():
    assert expected_total_variation(10, np.array([1.0, 0.0])) == 0
