import jax
import numpy as np
import pytest

from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.frozen import FrozenTokenizer, LearnedTokenizer
from vqdit.tokenizers.health import (
    changed_share,
    codebook_health,
    describe,
    diagnosis,
    digit_health,
    duplicate_codes,
    quantization_snr,
    tokenizer_health,
)
from vqdit.tokenizers.pixels import Pixels
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer, LookupFreeQuantizer, MultiScale, Residual

UNIFORM = codebook_health(np.repeat(np.arange(8), 5), 8)


def test_figures_of_known_frequencies():
    """Reference case 24: entropy in bits against log2 K, perplexity between 1 and K, counts of what is never seen."""
    assert UNIFORM['entropy_bits'] == pytest.approx(3) and UNIFORM['perplexity'] == pytest.approx(8)
    lopsided = codebook_health(np.array([0, 0, 0, 1]), 4)
    assert lopsided['entropy_bits'] == pytest.approx(2 - 0.75 * np.log2(3))
    assert (lopsided['usage'], lopsided['dead_codes'], lopsided['most_frequent_share']) == (0.5, 2, 0.75)


def test_figures_do_not_depend_on_the_split_into_batches_and_usage_only_grows():
    """Reference case 24."""
    codes = np.random.default_rng(0).integers(0, 16, 60)
    whole = codebook_health(codes, 32)
    assert whole == codebook_health(codes.reshape(3, 4, 5), 32)
    assert all(codebook_health(part, 32)['usage'] <= whole['usage'] for part in np.split(codes, 6))


@pytest.mark.parametrize('figures, words', [
    (codebook_health(np.zeros(900, int), 64), 'collapsed'),
    (codebook_health(np.arange(900) % 4, 1024), 'fewer codes'),
    (codebook_health(np.where(np.arange(900) < 880, 0, np.arange(900)), 1024) | {'perplexity': 3, 'usage': 0.2},
     'one code covers'),
    (UNIFORM | {'duplicate_codes': 3.0}, 'copies'), (UNIFORM | {'dead_digits': 1.0}, 'digits'),
    (UNIFORM | {'quantization_snr': 1.0}, 'far from the latents'),
    (UNIFORM, 'healthy'),
    (codebook_health(np.arange(50), 4096), 'healthy')])
def test_a_diagnosis_names_the_fault(figures, words):
    """The last: fifty tokens cannot use more than fifty codes."""
    assert words in diagnosis(figures)


def test_duplicates_are_counted_once_each():
    vectors = np.random.default_rng(0).normal(size=(10, 3))
    assert duplicate_codes(vectors) == 0
    vectors[7], vectors[9] = vectors[2], vectors[2] + 1e-5
    assert duplicate_codes(vectors) == 2


def test_an_error_of_a_tenth_is_twenty_decibels():
    latents = np.random.default_rng(0).normal(size=(4000, 2))
    assert quantization_snr(latents, latents * 0.9 + 0.1 * latents.mean()) == pytest.approx(20, abs=1e-6)


def test_every_digit_of_the_codes_has_figures_of_its_own():
    """Levels 3 and 4, and the bits of an 18-bit codebook of which one is dead (MaskBit, arXiv:2409.16211)."""
    first, second = digit_health(np.array([0, 1, 2, 3, 4, 5]), (3, 4))
    assert (first['usage'], second['usage']) == (1.0, 0.5) and second['perplexity'] == pytest.approx(2)
    bits = digit_health(np.random.default_rng(0).integers(0, 2**18, 500) & ~(1 << 7), (2,) * 18)
    assert [digit['perplexity'] < 1 + 1e-6 for digit in bits] == [place == 7 for place in range(18)]


def test_drift_is_the_share_of_tokens_with_another_code():
    assert changed_share(np.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 0]])) == 0.25


@pytest.mark.parametrize('quantizer, parts', [
    (FiniteScalarQuantizer((5, 3)), ['level 0']),
    (Residual((LookupFreeQuantizer(3), LookupFreeQuantizer(3))), ['level 0', 'level 1']),
    (MultiScale(LookupFreeQuantizer(3), ((2, 2),)), ['scale 0']),
    (MultiScale(LookupFreeQuantizer(3), ((1, 1), (2, 2))), ['scale 0', 'scale 1'])])
def test_a_tokenizer_is_measured_by_levels_or_scales(quantizer, parts):
    tokenizer = LearnedTokenizer(Pixels((8, 8), 1), Autoencoder(quantizer, 1, (8,), 1, (4, 4)))
    frozen = FrozenTokenizer(tokenizer, jax.jit(tokenizer.init)(jax.random.key(0)), batch_size=4)
    raw = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
    health = tokenizer_health(frozen, raw)
    assert list(health['parts']) == parts and np.isfinite(health['quantization_snr'])
    first = health['parts'][parts[0]]
    assert first['tokens'] == (8 if parts == ['scale 0', 'scale 1'] else 8 * 4)
    assert len(first['digits']) == len(tokenizer.spec.radices)
    assert ('duplicate_codes' in first) == (parts == ['level 0'])
    lines = list(describe('image', health))
    assert len(lines) == len(parts) + 1 and 'bits per token' in lines[0]
