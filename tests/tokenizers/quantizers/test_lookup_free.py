import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from driver import init, lookup, normal, quantize, train

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers import BinarySphericalQuantizer, LookupFreeQuantizer
from vqdit.tokenizers.quantizers.bits import batch_entropy, token_entropy

ONES = jnp.ones(40)


def _distribution(logits):
    """Probabilities of all codes of every token in float64, [T, 2^B], by the definition."""
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    codes = np.array(list(itertools.product([0, 1], repeat=logits.shape[1])))
    return np.prod(np.where(codes[None] == 1, p[:, None], 1 - p[:, None]), axis=-1)


def _entropy(p):
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0), axis=-1)


def test_bits_are_read_in_either_order_and_zero_is_minus_one():
    """Reference case 7: [1, -1, -1, -1] is 8 (vector-quantize-pytorch, BSQ) or 1 (Open-MAGVIT2, MaskBit)."""
    z = np.float32([[1, -1, -1, -1], [0, 0, 0, 0], [0.1, -2, 3, 4]])
    for order, codes in (('big', [8, 0, 11]), ('little', [1, 0, 13])):
        quantizer = LookupFreeQuantizer(4, bit_order=order)
        out = quantize(quantizer, {}, z)
        np.testing.assert_array_equal(out.codes[:, 0], codes)
        np.testing.assert_array_equal(out.vectors, np.where(z > 0, 1, -1))
        np.testing.assert_array_equal(lookup(quantizer, {}, out.codes), out.vectors)


@pytest.mark.parametrize('kind', [LookupFreeQuantizer, BinarySphericalQuantizer])
def test_all_codes_of_eighteen_bits_come_back_from_latents_in_half_precision(kind):
    """The index range of the largest published vocabulary, under a bfloat16 model."""
    quantizer = kind(18, entropy_group=9)
    codes = np.arange(2**18, dtype=np.int32)[:, None]
    vectors = lookup(quantizer, {}, codes)
    np.testing.assert_array_equal(quantize(quantizer, {}, vectors.astype(jnp.bfloat16)).codes, codes)


def test_entropies_are_those_of_the_full_table():
    """Reference case 8: 2^6 codes by brute force; the token's exact, the batch's exact in one group."""
    logits = normal(40, 6, scale=3)
    p = _distribution(logits)
    assert float(token_entropy(logits, ONES)) == pytest.approx(_entropy(p).mean(), rel=1e-5)
    assert float(batch_entropy(logits, ONES, 6)) == pytest.approx(_entropy(p.mean(0)), rel=1e-5)
    for group in (1, 2, 4):
        assert float(batch_entropy(logits, ONES, group)) >= _entropy(p.mean(0))
    low, high = _distribution(logits[:, :4]).mean(0), _distribution(logits[:, 4:]).mean(0)
    assert float(batch_entropy(logits, ONES, 4)) == pytest.approx(_entropy(low) + _entropy(high), rel=1e-5)


def test_entropies_of_hidden_tokens_do_not_count():
    """Reference case 25; the commitment loss of a peer once counted them."""
    logits = normal(40, 4)
    weights = jnp.asarray(np.arange(40) < 25, jnp.float32)
    for function in (token_entropy, lambda x, w: batch_entropy(x, w, 4)):
        np.testing.assert_allclose(function(logits, weights), function(logits[:25], ONES[:25]), rtol=1e-5)


def test_entropies_of_huge_logits_are_finite_with_their_gradients():
    """Reference case 8: logits of +-1e4."""
    logits = 1e4 * np.sign(normal(40, 6))
    for function in (token_entropy, lambda x, w: batch_entropy(x, w, 6)):
        value, slope = jax.jit(jax.value_and_grad(function))(logits, ONES)
        assert np.isfinite(value) and np.isfinite(slope).all()


def test_nothing_is_as_large_as_tokens_times_codes():
    """Reference case 6 and the index range: 4096 tokens of 2^18 codes would take 4 GiB."""
    call = jax.jit(lambda z: jax.grad(lambda z: LookupFreeQuantizer(18).apply({}, z).loss)(z))
    analysis = call.lower(jax.ShapeDtypeStruct((4096, 18), jnp.float32)).compile().memory_analysis()
    assert analysis.temp_size_in_bytes < 256 * 2**20


def test_the_loss_is_the_sum_of_its_parts():
    quantizer = LookupFreeQuantizer(4, entropy=0.3, diversity=2.0, temperature=2.0, commitment=0.5)
    z = normal(40, 4)
    p = _distribution(4 / 2.0 * z)
    expected = 0.3 * (_entropy(p).mean() - 2 * _entropy(p.mean(0))) + 0.5 * np.mean((z - np.sign(z)) ** 2)
    assert float(quantize(quantizer, {}, z).loss) == pytest.approx(expected, rel=1e-5)


def test_the_distribution_is_a_softmax_of_squared_distances():
    """softmax(-|z - c|^2 / temperature) over all codes is the product over bits that the entropies assume."""
    z, temperature = normal(5, 3), 0.7
    codes = np.array(list(itertools.product([-1, 1], repeat=3)))
    scores = -((z[:, None] - codes[None]) ** 2).sum(-1) / temperature
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(_distribution(4 / temperature * z), expected, atol=1e-6)


def test_the_entropy_weight_may_follow_the_steps():
    quantizer = LookupFreeQuantizer(3, commitment=0.0, entropy=optax.linear_schedule(3.0, 1.0, 2))
    z = normal(40, 3)
    variables = init(quantizer, jax.random.key(0), (40, 3))
    losses = []
    for _ in range(4):
        out, variables = train(quantizer, variables, z, jax.random.key(0))
        losses.append(float(out.loss))
    np.testing.assert_allclose(np.array(losses) / losses[3], [3, 2, 1, 1], rtol=1e-5)


def test_spherical_codes_have_unit_length_and_a_finite_gradient_at_zero():
    """Reference case 9."""
    quantizer = BinarySphericalQuantizer(6)
    out = quantize(quantizer, {}, normal(10, 6))
    np.testing.assert_allclose(np.linalg.norm(out.vectors, axis=-1), 1, rtol=1e-6)
    def value(z):
        out = quantizer.apply({}, z)
        return jnp.sum(out.vectors) + out.loss
    slope = jax.jit(jax.grad(value))(np.zeros((2, 6), np.float32))
    assert np.isfinite(slope).all()
    z = normal(10, 6)
    unit = z / np.linalg.norm(z, axis=-1, keepdims=True)
    out = quantize(BinarySphericalQuantizer(6, entropy=0.0, commitment=1.0), {}, z)
    assert float(out.loss) == pytest.approx(np.mean((unit - np.sign(z) / math.sqrt(6)) ** 2), rel=1e-5)


@pytest.mark.parametrize('kind', [LookupFreeQuantizer, BinarySphericalQuantizer])
def test_latents_that_are_not_finite_have_no_code_and_spoil_the_loss(kind):
    out = quantize(kind(4), {}, np.where(np.arange(10)[:, None] == 5, np.float32(np.nan), normal(10, 4)))
    assert int(out.codes[5, 0]) == -1 and (np.delete(out.codes, 5) >= 0).all() and not np.isfinite(out.loss)


def test_a_dead_bit_is_told():
    """MaskBit's 18 bits have one, and so half of the codes are never used."""
    z = np.abs(normal(40, 3)) * np.float32([1, 1, 1])
    z[:, 1:] *= np.sign(normal(40, 2, seed=3))
    assert float(quantize(LookupFreeQuantizer(3), {}, z).metrics['dead_bits']) == 1


@pytest.mark.parametrize('options', [{'bits': 0}, {'bits': 31}, {'bits': 24}, {'bits': 4, 'bit_order': 'middle'}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError, match='bit'):
        LookupFreeQuantizer(**options)
