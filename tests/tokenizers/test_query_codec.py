"""The codec of query tokens, at a size whose last patches are incomplete."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.tokenizers.codec import EncoderDecoder, Standardised
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer
from vqdit.tokenizers.query_codec import QueryDecoder, QueryEncoder, QueryTrunk

TRUNK = QueryTrunk(size=(7, 10), patch=(4, 4), queries=5, width=8, depth=1, heads=2)
MODEL = EncoderDecoder(Standardised(FiniteScalarQuantizer((5, 3))), QueryEncoder(TRUNK, 2), QueryDecoder(TRUNK, 3))
X = jax.random.normal(jax.random.key(0), (4, 7, 10, 3))


@pytest.fixture(scope='module')
def variables():
    return jax.jit(MODEL.init)(jax.random.key(1), X)


@jax.jit
def _through(variables, x):
    """Codes, what they decode to, and the output of the codec with its vectors."""
    codes = MODEL.apply(variables, x, method='encode')
    return codes, MODEL.apply(variables, codes, method='decode'), MODEL.apply(variables, x)


def test_decoding_codes_is_decoding_vectors_bit_for_bit(variables):
    codes, decoded, (output, quantized) = _through(variables, X)
    assert output.shape == X.shape and decoded.shape == (4, 8, 12, 3)
    np.testing.assert_array_equal(decoded[:, :7, :10], output)
    np.testing.assert_array_equal(codes, quantized.codes)


def test_there_are_as_many_tokens_as_asked_for_and_they_say_something(variables):
    codes, _, _ = _through(variables, X)
    assert codes.shape == (4, 5, 1) and MODEL.grid((7, 10)) == (5,)
    assert codes.dtype == jnp.int32 and len(np.unique(codes, axis=0)) == 4
    plain, _, _ = _through(variables, jnp.zeros_like(X))
    assert plain.shape == codes.shape, 'an empty image has as many'


def test_an_item_does_not_depend_on_its_batch(variables):
    codes, decoded, _ = _through(variables, X)
    alone, alone_decoded, _ = _through(variables, X[2:3])
    np.testing.assert_array_equal(codes[2:3], alone)
    np.testing.assert_allclose(decoded[2:3], alone_decoded, rtol=1e-5, atol=1e-5)


def test_every_parameter_learns_and_every_pixel_reaches_the_tokens(variables):
    def loss(params, x):
        latents = MODEL.apply({'params': params}, x, method=lambda module, x: module.encoder(x))
        output = MODEL.apply({'params': params}, latents, method=lambda module, vectors: module.decoder(vectors))
        return jnp.sum(output**2)

    of_params, of_pixels = jax.jit(jax.grad(loss, (0, 1)))(variables['params'], X)
    assert all(float(jnp.abs(leaf).max()) > 1e-6 for leaf in jax.tree.leaves(of_params))
    assert float(jnp.abs(of_pixels).min()) > 0


@pytest.mark.parametrize('change', [{'queries': 0}, {'heads': 3}, {'patch': (4, 0)}])
def test_trunks_that_cannot_be_are_refused(change):
    with pytest.raises(UserError, match='a query codec of'):
        QueryTrunk(**vars(TRUNK) | change)


def test_images_of_another_size_are_refused(variables):
    with pytest.raises(UserError, match=r'size \(8, 8\) is not of the size \(7, 10\)'):
        MODEL.grid((8, 8))
    with pytest.raises(AssertionError):
        jax.eval_shape(MODEL.apply, variables, jnp.zeros((1, 8, 8, 3)))
