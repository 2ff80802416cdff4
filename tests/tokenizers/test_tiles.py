import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer
from vqdit.tokenizers.tiles import decode_in_tiles

# Of kernel 3 at both resolutions: 1 + 1/2 places of the grid on either side.
REACH = 2


@functools.cache
def _made():
    """Codes on a grid of (9, 7), the compiled decoder, and what it gives for all of them."""
    model = Autoencoder(FiniteScalarQuantizer((8, 8)), 1, (4, 4), 1, (1, 1))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: (leaf + 0.3 * rng.normal(size=leaf.shape)).astype(np.float32),
                             jax.device_get(jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))))
    codes = jnp.asarray(rng.integers(0, 64, (2, 9, 7, 1)), jnp.int32)
    decode = jax.jit(lambda codes: model.apply(variables, codes, method='decode'))
    return codes, decode, np.asarray(decode(codes))


def test_tiles_with_a_margin_as_wide_as_the_decoder_reaches_are_the_whole():
    """Reference case 40."""
    codes, decode, whole = _made()
    assert whole.shape == (2, 18, 14, 1) and whole.std() > 0.1
    np.testing.assert_allclose(decode_in_tiles(decode, codes, (3, 4), REACH), whole, atol=1e-5)
    np.testing.assert_array_equal(decode_in_tiles(decode, codes, (20, 20), 0), whole)


def test_seams_lie_at_the_edges_of_tiles_alone():
    """Reference case 40: without a margin, what lies further inside than the decoder reaches is right."""
    codes, decode, whole = _made()
    error = np.abs(decode_in_tiles(decode, codes, (9, 4), 0) - whole).max(axis=(0, 1, 3))
    edge = 2 * REACH
    assert error[8 - edge:8 + edge].max() > 1e-2
    assert max(error[:8 - edge].max(), error[8 + edge:].max()) < 1e-5


@pytest.mark.parametrize(('tile', 'margin'), [((3,), 1), ((0, 3), 1), ((3, 3), -1)])
def test_tiles_that_do_not_fit_are_refused(tile, margin):
    with pytest.raises(UserError, match=rf'margin={margin}.*grid of \(9, 7\)'):
        decode_in_tiles(lambda codes: codes, jnp.zeros((1, 9, 7, 1), jnp.int32), tile, margin)
