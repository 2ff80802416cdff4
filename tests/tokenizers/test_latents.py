import jax
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.frozen import LearnedTokenizer
from vqdit.tokenizers.latent_statistics import Statistics
from vqdit.tokenizers.latents import CodeVectors, Unquantized
from vqdit.tokenizers.pixels import Pixels
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer, MultiScale

SCALARS = FiniteScalarQuantizer((5, 5))
STATISTICS = Statistics(np.array([0.5, -1.0]), np.array([2.0, 0.25]))


def _tokenizer(quantizer, size=(6, 10)):
    return LearnedTokenizer(Pixels(size, 3), Autoencoder(quantizer, 3, (4,), 1, (4, 4)))


def test_images_of_latents_are_the_tokenizers_own_at_sizes_that_no_stride_divides():
    tokenizer = _tokenizer(SCALARS)
    latents, variables = CodeVectors(tokenizer, STATISTICS), jax.jit(tokenizer.init)(jax.random.key(0))
    codes = np.random.default_rng(0).integers(0, 25, (2, tokenizer.spec.length)).astype(np.int32)
    drawn = latents.latents(variables, codes, jax.random.key(0))
    assert drawn.shape == (2, *latents.shape) == (2, 2, 3, 2)
    vectors = tokenizer.autoencoder.apply(variables, codes.reshape(2, 2, 3, 1), method='lookup')
    np.testing.assert_allclose(drawn, (np.asarray(vectors) - [0.5, -1.0]) / [2.0, 0.25], rtol=1e-5)
    images = latents.decode_latents(variables, drawn)
    assert images.shape == (2, 6, 10, 3)
    np.testing.assert_allclose(np.float32(images), np.float32(tokenizer.decode(variables, codes)), atol=1)


def test_unquantized_latents_are_stored_whole_and_quantised_at_the_end():
    """At a size that no stride divides; the images are those of the codes, and those of moved latents are of others."""
    tokenizer = _tokenizer(SCALARS)
    latents, variables = Unquantized(tokenizer, STATISTICS), jax.jit(tokenizer.init)(jax.random.key(0))
    raw = np.random.default_rng(0).integers(0, 256, (2, 6, 10, 3), np.uint8)

    @jax.jit
    def both(variables, raw):
        stored = latents.encode(variables, raw)
        drawn = latents.latents(variables, stored, jax.random.key(0))
        images = [latents.decode_latents(variables, drawn + step) for step in (0.0, 1e-3, 3.0)]
        codes = tokenizer.encode(variables, raw)
        return tokenizer.latents(variables, raw), stored, drawn, images, tokenizer.decode(variables, codes)

    inside, stored, drawn, (same, near, far), wanted = map(jax.device_get, both(variables, raw))
    assert stored.shape == (2, latents.spec.length) == (2, 2 * 3 * 2) and stored.max() < latents.spec.num_codes
    np.testing.assert_allclose(drawn, (inside - [0.5, -1.0]) / [2.0, 0.25], rtol=2e-3, atol=4e-3)
    np.testing.assert_array_equal(same, wanted)
    np.testing.assert_array_equal(near, wanted)
    assert (far != wanted).mean() > 0.1


def test_unquantized_latents_of_coarse_scales_have_rows_and_columns():
    scales = MultiScale(SCALARS, ((1, 1), (2, 2)))
    assert Unquantized(_tokenizer(scales, (8, 8)), STATISTICS).shape == (2, 2, 2)


def test_latents_need_rows_and_columns():
    with pytest.raises(UserError, match=r'grid of \(5,\).*rows and columns.*multi_scale'):
        CodeVectors(_tokenizer(MultiScale(SCALARS, ((1, 1), (2, 2))), (8, 8)), STATISTICS)
