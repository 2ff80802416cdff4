import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.folding import depth_to_space, space_to_depth, with_neighbours
from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer, VectorQuantizer

SIZES = {1: (16,), 2: (8, 12), 3: (4, 8, 8)}


def _small(rank, quantizer=None):
    return Autoencoder(quantizer or FiniteScalarQuantizer((5, 5)), 3, (8, 8), 1, (2,) * rank)


@functools.cache
def _initialised(rank):
    """A model, four items and variables."""
    model, x = _small(rank), np.random.default_rng(rank).normal(size=(4, *SIZES[rank], 3)).astype(np.float32)
    return model, x, jax.jit(model.init)(jax.random.key(1), x)


def _apply(model, variables, *arguments, **options):
    """`model.apply` compiled as one program, which takes a fraction of the time of its operations one by one."""
    return jax.jit(functools.partial(model.apply, **options))(variables, *arguments)


@pytest.mark.parametrize('rank', [1, 2, 3])
def test_folding_into_channels_is_undone(rank):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *SIZES[rank], 3)), jnp.float32)
    patch = (2, 4, 2)[:rank]
    folded = space_to_depth(x, patch)
    assert folded.shape[1:-1] == tuple(s // p for s, p in zip(SIZES[rank], patch))
    np.testing.assert_array_equal(depth_to_space(folded, patch), x)


def test_neighbours_are_those_around_and_zeros_beyond_the_edge():
    x = np.arange(1.0, 13.0).reshape(1, 3, 4, 1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(x[0, :, :, 0], 1), (3, 3)).reshape(1, 3, 4, 9)
    np.testing.assert_array_equal(with_neighbours(jnp.asarray(x)), around)
    np.testing.assert_array_equal(with_neighbours(jnp.asarray(x[:, 0]))[0, :, 0], [0, 1, 2, 3])


def test_a_patch_is_a_block_of_neighbours():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(space_to_depth(x, (2, 2))[0, 0, 1], [2, 3, 6, 7])


@pytest.mark.parametrize('rank', [1, 2, 3])
def test_decoding_codes_is_decoding_vectors_bit_for_bit(rank):
    model, x, variables = _initialised(rank)
    codes = _apply(model, variables, x, method='encode')
    assert codes.shape == (4, *model.grid(SIZES[rank]), 1)
    assert codes.dtype == jnp.int32
    decoded = _apply(model, variables, codes, method='decode')
    np.testing.assert_array_equal(decoded, _apply(model, variables, x).output)
    assert decoded.shape == x.shape


def test_an_item_does_not_depend_on_its_batch():
    model, x, variables = _initialised(2)
    whole = _apply(model, variables, x, method='encode')
    alone = _apply(model, variables, x[2:3], method='encode')
    np.testing.assert_array_equal(whole[2:3], alone)


def test_codebook_state_is_handed_back():
    model = _small(2, VectorQuantizer(num_codes=8, dimension=4))
    x = _initialised(2)[1]
    variables = jax.jit(model.init)(jax.random.key(1), x)
    assert not bool(variables['codebook']['quantizer']['initialised'])
    _, changed = _apply(model, variables, x, train=True, key=jax.random.key(2), mutable=['codebook'])
    assert bool(changed['codebook']['quantizer']['initialised'])


def test_every_parameter_of_encoder_and_decoder_learns():
    model, x, variables = _initialised(2)
    # The last convolution of a block starts at zero, which hides what lies before it for one step.
    variables = jax.tree.map(lambda v: v + 0.05, variables)
    gradient = jax.jit(jax.grad(lambda v: jnp.mean((model.apply(v, x).output - x) ** 2)))(variables)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


def test_wrong_channels_are_refused_at_trace_time():
    model = _small(2)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *SIZES[2], 3)))
    with pytest.raises(AssertionError):
        jax.eval_shape(model.apply, variables, jnp.zeros((1, *SIZES[2], 1)))
