import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.evaluation.image import ssim
from vqdit.tokenizers.losses.reconstruction import (
    binary_cross_entropy,
    charbonnier_loss,
    dissimilarity_loss,
    gradient_loss,
)

RNG = np.random.default_rng(0)
A, B = (RNG.uniform(-1, 1, (2, 12, 14, 3)).astype(np.float32) for _ in range(2))


def test_charbonnier_is_the_error_with_a_smooth_foot():
    expected = np.mean(np.sqrt((A.astype(np.float64) - B) ** 2 + 1e-6))
    assert float(charbonnier_loss(A, B)) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(jax.grad(charbonnier_loss)(A, A)).all()


def test_cross_entropy_of_logits_is_that_of_their_probabilities_and_finite_for_huge_ones():
    target = (A + 1) / 2
    p = 1 / (1 + np.exp(-B.astype(np.float64)))
    expected = np.mean(-target * np.log(p) - (1 - target) * np.log(1 - p))
    assert float(binary_cross_entropy(B, target)) == pytest.approx(expected, rel=1e-6)
    assert float(binary_cross_entropy(jnp.full(3, 1e4), jnp.zeros(3))) == pytest.approx(1e4)


@pytest.mark.parametrize('shape', [(2, 9, 3), (2, 5, 6, 1), (1, 3, 4, 5, 2)])
def test_gradients_ignore_an_offset_and_see_an_edge(shape):
    x, y = RNG.normal(size=shape), RNG.normal(size=shape)
    axes = range(1, len(shape) - 1)
    expected = np.mean([np.mean(np.abs(np.diff(x - y, axis=axis))) for axis in axes])
    assert float(gradient_loss(x, y)) == pytest.approx(expected, rel=1e-5)
    assert float(gradient_loss(x + 5, x)) == pytest.approx(0, abs=1e-5)


def test_dissimilarity_is_one_less_the_measured_similarity():
    """Against the independent one of the evaluation, on the range 0 .. 255."""
    a, b = (np.round((x + 1) * 127.5).astype(np.uint8) for x in (A, B))
    expected = 1 - np.mean(ssim(a, b))
    assert float(dissimilarity_loss(a, b, peak=255.0)) == pytest.approx(expected, abs=1e-4)
    assert float(dissimilarity_loss(A, A)) == pytest.approx(0, abs=1e-5)


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(UserError, match='structural similarity'):
        dissimilarity_loss(A[:, :8], B[:, :8])
