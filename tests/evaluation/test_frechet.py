import numpy as np
import pytest
from scipy.linalg import sqrtm

from vqdit.errors import UserError
from vqdit.evaluation.frechet import coarse_pixels, frechet_distance

RNG = np.random.default_rng(0)


def test_the_distance_is_that_of_its_definition():
    """arXiv:1706.08500, eq. 6, with the matrix root as it stands there."""
    a, b = RNG.normal(size=(50, 4)), RNG.normal(size=(60, 4)) @ RNG.normal(size=(4, 4)) + 1
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_a_shift_alone_is_its_square_and_equal_sets_are_at_zero():
    a = RNG.normal(size=(50, 3))
    assert frechet_distance(a, a + np.array([3, 0, 4])) == pytest.approx(25, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_fewer_examples_than_features_are_finite():
    assert np.isfinite(frechet_distance(RNG.normal(size=(3, 40)), RNG.normal(size=(4, 40))))


def test_one_example_is_refused():
    with pytest.raises(UserError, match='at least 2'):
        frechet_distance(np.zeros((1, 3)), np.zeros((5, 3)))


def test_coarse_pixels_are_the_means_of_squares():
    pictures = RNG.integers(0, 256, (2, 16, 24, 3)).astype(np.uint8)
    expected = pictures.reshape(2, 8, 2, 8, 3, 3).mean(axis=(2, 4)).reshape(2, -1) / 255
    np.testing.assert_allclose(coarse_pixels(pictures), expected)
