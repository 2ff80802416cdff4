import jax
import numpy as np
import pytest

from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.code_vectors import code_vectors, vector_channels
from vqdit.tokenizers.frozen import FrozenTokenizer, LearnedTokenizer
from vqdit.tokenizers.pixels import Pixels
from vqdit.tokenizers.quantizers import build_quantizer
from vqdit.tokenizers.text import WordTokenizer

FINITE = {'name': 'finite_scalar', 'scalar_levels': (5, 3)}
QUANTIZERS = [FINITE, {'name': 'residual', 'copies': 2, 'quantizer': FINITE | {'bound': 'clipped'}},
              {'name': 'grouped', 'copies': 2, 'quantizer': FINITE}]


@pytest.mark.parametrize('options', QUANTIZERS)
def test_they_are_the_standardised_codebook(options):
    """Vectors of a position differ as the quantizer's own do, level by level, in units of each channel's deviation."""
    quantizer = build_quantizer(options)
    learned = LearnedTokenizer(Pixels((4, 4), 1), Autoencoder(quantizer, 1, (4,), 1, (4, 4)))
    variables = jax.jit(learned.init)(jax.random.key(0))
    table = code_vectors(FrozenTokenizer(learned, variables))
    assert table.shape == (quantizer.levels, 15, vector_channels(learned))
    changing = np.ptp(table, axis=1) > 0
    np.testing.assert_allclose(table.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(table.std(1)[changing], 1, atol=1e-5)
    assert changing.any(axis=1).all()
    codes = np.random.default_rng(0).integers(0, 15, (4, quantizer.levels))
    vectors = np.asarray(quantizer.apply({}, codes, method='lookup'))
    for level in range(quantizer.levels):
        moved = codes.copy()
        moved[:, level] = (moved[:, level] + 4) % 15
        change = np.asarray(quantizer.apply({}, moved, method='lookup')) - vectors
        ours = table[level, moved[:, level]] - table[level, codes[:, level]]
        assert np.linalg.matrix_rank(np.concatenate([change, ours], axis=1), tol=1e-4) <= quantizer.dimension
        assert ((np.abs(change) > 1e-6) == (np.abs(ours) > 1e-6)).all()


def test_a_tokenizer_without_a_codebook_has_the_bits_of_its_codes():
    tokenizer = WordTokenizer(('red', 'green', 'blue'), 3)
    table, codes = code_vectors(tokenizer), tokenizer.spec.num_codes
    assert table.shape == (1, codes, vector_channels(tokenizer.spec)) and set(np.unique(table)) == {-1.0, 1.0}
    weights = 2 ** np.arange(table.shape[-1])
    np.testing.assert_array_equal((table[0] > 0) @ weights, np.arange(codes))
