import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer


def _oracle(z: np.ndarray, levels: tuple[int, ...]) -> np.ndarray:
    """Equation (1) of the paper's appendix in float64: digits in 0 .. L - 1."""
    levels_array = np.asarray(levels, np.float64)
    half = (levels_array - 1) * (1 - 1e-3) / 2
    offset = np.where(levels_array % 2 == 0, 0.5, 0.0)
    bounded = np.tanh(z + np.tan(offset / half)) * half - offset
    return np.round(bounded) + levels_array // 2


@pytest.mark.parametrize('levels', [(8, 5, 5, 5), (3, 4), (2, 2, 2), (7,)])
def test_codes_are_those_of_the_paper(levels):
    z = np.random.default_rng(0).normal(size=(500, len(levels))) * 2
    digits = _oracle(z, levels)
    basis = np.concatenate([[1], np.cumprod(levels)[:-1]])
    out = FiniteScalarQuantizer(levels).apply({}, jnp.asarray(z, jnp.float32))
    np.testing.assert_array_equal(out.codes[:, 0], (digits * basis).sum(-1))
    expected = (digits - np.asarray(levels) // 2) / (np.asarray(levels) // 2)
    np.testing.assert_allclose(out.vectors, expected, atol=1e-6)


@pytest.mark.parametrize('levels', [(8, 5, 5, 5), (3, 4, 2)])
def test_every_code_has_its_own_vector_and_comes_back(levels):
    quantizer = FiniteScalarQuantizer(levels)
    codes = jnp.arange(math.prod(levels), dtype=jnp.int32)[:, None]
    vectors = quantizer.apply({}, codes, method='lookup')
    assert len(np.unique(np.asarray(vectors), axis=0)) == quantizer.num_codes
    # A latent far inside the cell of a code is quantised to that code.
    half = (np.asarray(levels) - 1) * (1 - 1e-3) / 2
    offset = np.where(np.asarray(levels) % 2 == 0, 0.5, 0.0)
    digits = np.asarray(vectors) * (np.asarray(levels) // 2)
    z = np.arctanh(np.clip((digits + offset) / half, -0.9999, 0.9999)) - np.tan(offset / half)
    np.testing.assert_array_equal(quantizer.apply({}, jnp.asarray(z, jnp.float32)).codes, codes)


def test_decoding_from_codes_is_decoding_from_vectors_bit_for_bit():
    quantizer = FiniteScalarQuantizer((8, 6, 5))
    out = quantizer.apply({}, jax.random.normal(jax.random.key(0), (4, 7, 3)))
    looked_up = quantizer.apply({}, out.codes, method='lookup')
    assert out.codes.shape == (4, 7, 1)
    assert (np.asarray(out.vectors) == np.asarray(looked_up)).all()


def test_half_precision_latents_do_not_blur_the_codes():
    """Index arithmetic in bfloat16 would merge neighbouring codes beyond 256."""
    quantizer = FiniteScalarQuantizer((8, 8, 8, 6, 5))
    z = jax.random.normal(jax.random.key(0), (2000, 5)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(quantizer.apply({}, z).codes, quantizer.apply({}, z.astype(jnp.float32)).codes)


def test_gradient_is_that_of_the_bound():
    quantizer, z = FiniteScalarQuantizer((5, 5)), jnp.array([[0.3, -1.2]])
    through = jax.grad(lambda z: quantizer.apply({}, z).vectors.sum())(z)
    bound = jax.grad(lambda z: (quantizer.bind({}).bound(z) / 2).sum())(z)
    np.testing.assert_allclose(through, bound, rtol=1e-5)


@pytest.mark.parametrize('levels', [(), (8, 1), (65536, 65536)])
def test_impossible_levels_are_refused(levels):
    with pytest.raises(UserError, match='scalar_levels'):
        FiniteScalarQuantizer(levels)


def test_wrong_width_is_refused_at_trace_time():
    with pytest.raises(AssertionError):
        FiniteScalarQuantizer((5, 5)).apply({}, jnp.zeros((2, 3)))


def test_usage_and_perplexity_count_what_is_there():
    digits = jnp.array(list(itertools.product([-2.0, 2.0], repeat=2)))
    metrics = FiniteScalarQuantizer((3, 3)).apply({}, digits * 5).metrics
    assert float(metrics['usage']) == pytest.approx(4 / 9)
    assert float(metrics['perplexity']) == pytest.approx(4, rel=1e-5)
