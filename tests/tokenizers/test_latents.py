import jax
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.frozen import LearnedTokenizer
from vqdit.tokenizers.latents import CodeVectors
from vqdit.tokenizers.pixels import Pixels
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer, MultiScale

SCALARS = FiniteScalarQuantizer((5, 5))


def _tokenizer(quantizer, size=(6, 10)):
    return LearnedTokenizer(Pixels(size, 3), Autoencoder(quantizer, 3, (4,), 1, (4, 4)))


def test_images_of_latents_are_the_tokenizers_own_at_sizes_that_no_stride_divides():
    tokenizer = _tokenizer(SCALARS)
    latents, variables = CodeVectors(tokenizer, scale=1.5), jax.jit(tokenizer.init)(jax.random.key(0))
    codes = np.random.default_rng(0).integers(0, 25, (2, tokenizer.spec.length)).astype(np.int32)
    drawn = latents.latents(variables, codes, jax.random.key(0))
    assert drawn.shape == (2, *latents.shape) == (2, 2, 3, 2)
    images = latents.decode_latents(variables, drawn)
    assert images.shape == (2, 6, 10, 3)
    np.testing.assert_allclose(np.float32(images), np.float32(tokenizer.decode(variables, codes)), atol=1)


def test_latents_need_rows_and_columns():
    with pytest.raises(UserError, match=r'grid of \(5,\).*rows and columns.*multi_scale'):
        CodeVectors(_tokenizer(MultiScale(SCALARS, ((1, 1), (2, 2))), (8, 8)))
