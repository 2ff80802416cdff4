"""Causality, chunks, sizes and the optional layers of the N-D autoencoder."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.tokenizers.autoencoder import AdaptiveGroupNorm, Autoencoder, groups_of
from vqdit.tokenizers.padding import Causal, Centred, FirstAlone, complete, crop, grid_of, in_chunks
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer

AUDIO = Autoencoder(FiniteScalarQuantizer((8, 8)), 2, (8, 8), 1, (2,), Causal(), 0, AdaptiveGroupNorm)
VIDEO = Autoencoder(FiniteScalarQuantizer((8, 8)), 2, (8, 8), 1, (1, 2, 2), FirstAlone(), 2, AdaptiveGroupNorm)
IMAGE = Autoencoder(FiniteScalarQuantizer((8, 8)), 2, (8, 8), 1, (2, 2), Centred(), 2, AdaptiveGroupNorm)
SIZES = {AUDIO: (24,), VIDEO: (7, 8, 8), IMAGE: (12, 8)}


@functools.cache
def _made(model):
    """Variables with nothing at zero, data, and the compiled methods."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, *SIZES[model], 2)).astype(np.float32)
    variables = jax.tree.map(lambda leaf: (leaf + 0.2 * rng.normal(size=leaf.shape)).astype(np.float32),
                             jax.device_get(jax.jit(model.init)(jax.random.key(1), x)))
    variables['codebook']['standardise']['variance'] = np.full(2, 4.0, np.float32)
    encode, decode = (functools.partial(jax.jit(functools.partial(model.apply, method=name)), variables)
                      for name in ('encode', 'decode'))
    return variables, jnp.asarray(x), encode, decode


def _close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-5)


@pytest.mark.parametrize('model', SIZES)
def test_an_item_alone_is_the_item_in_its_batch(model):
    _, x, encode, decode = _made(model)
    codes = encode(x)
    assert len(np.unique(codes)) > 8 and codes.shape == (3, *model.grid(SIZES[model]), 1)
    np.testing.assert_array_equal(codes[1:2], encode(x[1:2]))
    _close(decode(codes)[1], decode(codes.at[jnp.asarray([0, 2])].set(0))[1])


@pytest.mark.parametrize('model', [AUDIO, VIDEO])
def test_what_comes_later_changes_nothing(model):
    """Later data, padding among it, changes no earlier token, and later tokens no earlier data (case 39)."""
    _, x, encode, decode = _made(model)
    stride, lead = model.strides[0], model.padding.lead(model.strides[0])
    kept = 2 * stride - lead
    codes = encode(x)
    np.testing.assert_array_equal(codes[:, :2], encode(x.at[:, kept:].set(0.0))[:, :2])
    np.testing.assert_array_equal(codes[:, :2], encode(x[:, :kept]))
    _close(decode(codes)[:, :kept], decode(codes.at[:, 2:].set(0))[:, :kept])


@pytest.mark.parametrize('model', [AUDIO, VIDEO])
def test_chunks_are_the_whole(model):
    """Reference case 39."""
    variables, x, encode, decode = _made(model)
    stride, lead = model.strides[0], model.padding.lead(model.strides[0])
    cuts = [stride - lead, 3 * stride - lead]
    codes = encode(x)
    chunked = list(in_chunks(model, variables, jnp.split(x, cuts, axis=1), 'encode'))
    assert [part.shape[1] for part in chunked] == [1, 2, codes.shape[1] - 3]
    np.testing.assert_array_equal(np.concatenate(chunked, axis=1), codes)
    decoded = list(in_chunks(model, variables, jnp.split(codes, [1, 3], axis=1), 'decode'))
    assert [part.shape[1] for part in decoded][:2] == [stride - lead, 2 * stride]
    _close(np.concatenate(decoded, axis=1), decode(codes))


def test_a_film_of_one_frame_is_a_picture():
    """Reference case 39: T = 1, and the tokens of the first frame know nothing of later ones."""
    _, x, encode, decode = _made(VIDEO)
    codes = encode(x[:, :1])
    assert codes.shape == (3, 1, 2, 2, 1)
    np.testing.assert_array_equal(codes, encode(x)[:, :1])
    assert decode(codes).shape == (3, 1, 8, 8, 2)


def test_a_stream_leaves_no_trace_in_the_variables():
    variables = _made(VIDEO)[0]
    assert set(variables) == {'params', 'codebook'}


@pytest.mark.parametrize(('model', 'size'), [(IMAGE, (9, 7)), (VIDEO, (6, 5, 6))])
def test_data_of_any_size_comes_back_in_it(model, size):
    """Reference case 37: codes are those of the data completed by its last positions, the rest as it is."""
    variables, _, encode, _ = _made(model)
    x = np.random.default_rng(3).normal(size=(2, *size, 2)).astype(np.float32)
    whole = complete(x, model.strides, model.padding.lead(model.strides[0]))
    out, (_, codes, *_) = jax.jit(model.apply)(variables, x)
    assert codes.shape[1:-1] == model.grid(size) and out.shape == x.shape
    after = crop(whole[:, model.padding.lead(model.strides[0]):], [side + 8 for side in size])
    np.testing.assert_array_equal(codes, encode(after))


@pytest.mark.parametrize(('model', 'size'),
                         [(IMAGE, (29, 31)), (IMAGE, (28, 32)), (AUDIO, (1001,)), (VIDEO, (6, 8, 8))])
def test_sizes_come_back(model, size):
    """Reference case 37; a peer makes 31992 samples of 32000."""
    x = jax.ShapeDtypeStruct((1, *size, 2), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert jax.eval_shape(model.apply, variables, x).output.shape == x.shape


def test_completing_repeats_the_ends():
    x = jnp.arange(3.0).reshape(1, 3, 1)
    np.testing.assert_array_equal(complete(x, (4,), 3)[0, :, 0], [0, 0, 0, 0, 1, 2, 2, 2])
    assert complete(x, (3,)) is x
    assert grid_of((17, 64, 60), (4, 8, 8), 3) == (5, 8, 8)
    with pytest.raises(UserError, match=r'\(8, 8\).*strides \(4,\)'):
        grid_of((8, 8), (4,))


class Surrounded(nn.Module):
    padding: Causal | Centred

    def __call__(self, x, total):
        return self.padding.surround(self, x, total, extra=1)


@pytest.mark.parametrize('mode', ['constant', 'reflect', 'edge'])
@pytest.mark.parametrize('length', [1, 2, 9])
def test_margins_are_those_of_numpy(mode, length):
    """What is too short to be reflected is followed by zeros first, as in EnCodec."""
    x = jnp.arange(1.0, length + 1).reshape(1, length, 1)
    zeros = max(0, 5 - length) if mode == 'reflect' else 0
    expected = np.pad(np.pad(np.arange(1.0, length + 1), (0, zeros)), (4, 1), mode)
    padded, margins = Surrounded(Causal(mode)).apply({}, x, 4)
    np.testing.assert_array_equal(padded[0, :, 0], expected[:len(expected) - zeros])
    assert margins == (0, 0)
    assert Surrounded(Centred()).apply({}, x, 3)[1] == (2, 2)


def test_the_code_vectors_reach_every_resolution():
    """At first the layer is a norm of groups alone, as in float64 numpy; later each place follows its vector."""
    rng = np.random.default_rng(0)
    x, vectors = (rng.normal(mean, 1, shape).astype(np.float32)
                  for mean, shape in ((1000, (2, 4, 6, 8)), (0, (2, 2, 3, 5))))
    layer = AdaptiveGroupNorm(Centred())
    out, params = layer.init_with_output(jax.random.key(0), x, vectors)
    groups = x.astype(np.float64).reshape(2, 24, 2, 4)
    mean, variance = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    np.testing.assert_allclose(out, ((groups - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape), atol=2e-3)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, params)
    others = np.concatenate([vectors[:, :1], vectors[:, 1:] + 1], axis=1)
    changed = layer.apply(moved, x, vectors) - layer.apply(moved, x, others)
    assert float(jnp.abs(changed[:, :2]).max()) == 0 and float(jnp.abs(changed[:, 2:]).max()) > 0.1
    assert [groups_of(width) for width in (1, 6, 48, 128, 512)] == [1, 1, 12, 32, 32]


def test_attention_without_anything_to_attend_to_is_refused():
    with pytest.raises(UserError, match='heads=2'):
        AUDIO.clone(heads=2)
