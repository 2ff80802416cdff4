import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from driver import lookup, normal, quantize, train

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer
from vqdit.tokenizers.quantizers.bounds import ArctanhBound, ClippedBound, SymmetricBound, TangentBound


def _digits(z: np.ndarray, levels: tuple[int, ...], bound) -> np.ndarray:
    """Digits 0 .. L - 1 in float64: equation (1) of the paper, the form of its ports, and that of arXiv:2411.19842."""
    size = np.asarray(levels, np.float64)
    if isinstance(bound, SymmetricBound):
        return np.floor((size - 1) * (np.tanh(z) + 1) / 2 + 0.5)
    half = (size - 1) * (1 + bound.epsilon) / 2
    offset = np.where(size % 2 == 0, 0.5, 0.0)
    shift = (np.tan if isinstance(bound, TangentBound) else np.arctanh)(offset / half)
    return np.round(np.tanh(z + shift) * half - offset) + size // 2


def _basis(levels):
    return np.concatenate([[1], np.cumprod(levels)[:-1]]).astype(int)


@pytest.mark.parametrize('bound', [TangentBound(), ArctanhBound(), SymmetricBound()])
@pytest.mark.parametrize('levels', [(8, 5, 5, 5), (3, 4), (7,)])
def test_codes_are_those_of_the_paper_and_of_its_ports(levels, bound):
    """Reference case 3."""
    z = normal(500, len(levels), scale=2)
    digits = _digits(z.astype(np.float64), levels, bound)
    out = quantize(FiniteScalarQuantizer(levels, bound), {}, z)
    np.testing.assert_array_equal(out.codes[:, 0], (digits * _basis(levels)).sum(-1))
    size = np.asarray(levels)
    values = 2 * digits / (size - 1) - 1 if isinstance(bound, SymmetricBound) else (digits - size // 2) / (size // 2)
    np.testing.assert_allclose(out.vectors, values, atol=1e-6)


def test_the_two_conventions_disagree_on_a_token_in_a_hundred():
    """Reference finding 5: about 1 % of tokens of 4 dimensions, on N(0, 1)."""
    z = normal(4000, 4)
    a, b = (quantize(FiniteScalarQuantizer((8, 5, 5, 5), bound), {}, z).codes
            for bound in (TangentBound(), ArctanhBound()))
    assert 0.003 < np.mean(np.asarray(a) != np.asarray(b)) < 0.03


@pytest.mark.parametrize('bound', [TangentBound(), ArctanhBound(), SymmetricBound(), ClippedBound()])
def test_extremes_have_the_first_and_the_last_code(bound):
    """Reference case 3: latents of +-20."""
    quantizer = FiniteScalarQuantizer((8, 5, 4), bound)
    np.testing.assert_array_equal(quantize(quantizer, {}, np.float32([[-20] * 3, [20] * 3])).codes[:, 0], [0, 159])


def test_even_levels_are_lopsided_but_in_the_symmetric_form():
    """Reference case 4: for L = 8, -1 .. 0.75 against -1 .. 1."""
    ends = np.float32([[-20], [20]])
    np.testing.assert_allclose(quantize(FiniteScalarQuantizer((8,)), {}, ends).vectors[:, 0], [-1, 0.75])
    np.testing.assert_allclose(quantize(FiniteScalarQuantizer((8,), SymmetricBound()), {}, ends).vectors[:, 0], [-1, 1])


@pytest.mark.parametrize('levels', [(8, 5, 5, 5), (7, 5, 5, 5, 5), (8, 8, 8, 6, 5), (8, 8, 8, 5, 5, 5),
                                    (8, 8, 8, 8, 6, 5)])
def test_every_code_has_its_own_vector_and_comes_back(levels):
    """Reference cases 1, 2: all indices, under latents in bfloat16, where sums of floats would merge neighbours."""
    quantizer = FiniteScalarQuantizer(levels)
    codes = np.arange(math.prod(levels), dtype=np.int32)[:, None]
    vectors = np.asarray(lookup(quantizer, {}, codes))
    size = np.asarray(levels)
    np.testing.assert_array_equal(np.round(vectors * (size // 2)) + size // 2, codes // _basis(levels) % size)
    # A latent in the middle of the cell of a code is quantized to that code.
    half, offset = (size - 1) * (1 - 1e-3) / 2, np.where(size % 2 == 0, 0.5, 0.0)
    z = np.arctanh(np.clip((vectors * (size // 2) + offset) / half, -0.999, 0.999)) - np.tan(offset / half)
    np.testing.assert_array_equal(quantize(quantizer, {}, jnp.asarray(z, jnp.bfloat16)).codes, codes)


@pytest.mark.parametrize('bound', [TangentBound(), SymmetricBound(), ClippedBound()])
def test_decoding_from_codes_is_decoding_from_vectors_bit_for_bit(bound):
    quantizer = FiniteScalarQuantizer((8, 6, 5), bound)
    out = quantize(quantizer, {}, normal(4, 7, 3))
    assert out.codes.shape == (4, 7, 1)
    np.testing.assert_array_equal(out.vectors, lookup(quantizer, {}, out.codes))


def test_half_precision_latents_do_not_blur_the_codes():
    """Index arithmetic in bfloat16 would merge neighbouring codes beyond 256."""
    quantizer = FiniteScalarQuantizer((8, 8, 8, 6, 5))
    z = jnp.asarray(normal(2000, 5), jnp.bfloat16)
    whole = quantize(quantizer, {}, z.astype(jnp.float32))
    np.testing.assert_array_equal(quantize(quantizer, {}, z).codes, whole.codes)


@pytest.mark.parametrize('bound', [TangentBound(), SymmetricBound()])
def test_gradient_is_that_of_the_bound(bound):
    quantizer, z, levels = FiniteScalarQuantizer((5, 5), bound), np.float32([[0.3, -1.2]]), np.array([[5, 5]])
    through = jax.jit(jax.grad(lambda z: quantizer.apply({}, z).vectors.sum()))(z)
    expected = jax.grad(lambda z: bound.value(bound.position(z, levels), levels).sum())(z)
    np.testing.assert_allclose(through, expected, rtol=1e-5)


def test_noise_leaves_the_codes_alone_and_keeps_within_a_level():
    """Reference case 5: in a peer noise made indices negative."""
    quantizer = FiniteScalarQuantizer((5, 4), SymmetricBound(), noise=0.5)
    z = normal(400, 2, scale=0.3)
    noisy, _ = train(quantizer, {}, z, jax.random.key(0))
    plain = quantize(quantizer, {}, z)
    np.testing.assert_array_equal(noisy.codes, plain.codes)
    change = np.asarray(noisy.vectors) - plain.vectors
    assert 0.4 < np.mean(change != 0) < 0.6
    assert (np.abs(change) < 2 / (np.array([5, 4]) - 1) + 1e-6).all() and np.abs(noisy.vectors).max() <= 1


@pytest.mark.parametrize('levels', [(), (8, 1), (8, 2), (65536, 65536)])
def test_impossible_levels_are_refused(levels):
    """Reference cases 4, 6: two levels need the symmetric form, and int32 must number the codes."""
    with pytest.raises(UserError, match='scalar_levels'):
        FiniteScalarQuantizer(levels)


def test_two_levels_are_symmetric():
    assert FiniteScalarQuantizer((2, 2), SymmetricBound()).num_codes == 4


def test_wrong_width_is_refused_at_trace_time():
    with pytest.raises(AssertionError, match='as wide as the quantizer'):
        FiniteScalarQuantizer((5, 5)).apply({}, jnp.zeros((2, 3)))


def test_usage_and_perplexity_count_what_is_there():
    digits = np.float32(list(itertools.product([-2.0, 2.0], repeat=2)))
    metrics = quantize(FiniteScalarQuantizer((3, 3)), {}, digits * 5).metrics
    assert float(metrics['usage']) == pytest.approx(4 / 9)
    assert float(metrics['perplexity']) == pytest.approx(4, rel=1e-5)
    hidden = quantize(FiniteScalarQuantizer((3, 3)), {}, digits * 5, np.array([True, True, False, False])).metrics
    assert float(hidden['perplexity']) == pytest.approx(2, rel=1e-5)
