"""A context beside the tokens: embedded, in one stream with them or in one of its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.models.conditions import CodeContext, VectorContext
from vqdit.models.dit import DiT
from vqdit.models.parts import PARTS

WIDTH, CODES = 16, jnp.asarray([[0, 4, 2], [5, 5, 5]], jnp.int32)
TOLD = jnp.asarray([0.0, 500.0]), jnp.asarray([1, 3], jnp.int32)
LATENTS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 4)), jnp.float32)


def _model(**options):
    return DiT(**({'size': (4, 6), 'width': WIDTH, 'depth': 3, 'heads': 2, 'classes': 3, 'parts': PARTS['modern'](),
                   'context': CodeContext(WIDTH, 5, 3)} | options))


@functools.cache
def _awake(double_depth=1):
    """Parameters with nothing at zero, and the compiled model."""
    model, rng = _model(double_depth=double_depth), np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), LATENTS, *TOLD, CODES)['params']
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes)
    return params, jax.jit(lambda params, latents, context: model.apply({'params': params}, latents, *TOLD, context))


@pytest.mark.parametrize('double_depth', [0, 1])
def test_every_place_of_the_context_reaches_its_image_and_no_other(double_depth):
    params, apply = _awake(double_depth)
    whole = apply(params, LATENTS, CODES)
    assert whole.shape == (2, 4, 6, 8)
    for place in range(3):
        changed = apply(params, LATENTS, CODES.at[0, place].set(1))
        assert np.abs(changed[0] - whole[0]).max() > 1e-3
        np.testing.assert_allclose(changed[1], whole[1], atol=1e-5)


def test_the_order_of_codes_is_told():
    params, apply = _awake(0)
    assert np.abs(apply(params, LATENTS, CODES[:, ::-1])[0] - apply(params, LATENTS, CODES)[0]).max() > 1e-3


def test_first_blocks_have_weights_for_either_stream():
    params, _ = _awake(1)
    image, context = (params['double_blocks'][name] for name in ('image', 'context'))
    assert jax.tree.map(jnp.shape, image) == jax.tree.map(jnp.shape, context)
    assert image['attention']['qkv']['kernel'].shape == (1, WIDTH, 3, 2, WIDTH // 2)
    assert params['blocks']['attention']['qkv']['kernel'].shape == (2, WIDTH, 3, 2, WIDTH // 2)


def test_two_streams_with_the_same_weights_are_one():
    """Joint attention does not know whose tokens are whose."""
    params, apply = _awake(1)
    same = params | {'double_blocks': dict.fromkeys(('image', 'context'), params['double_blocks']['image'])}
    single_params, single = _awake(0)
    stacked = jax.tree.map(lambda first, rest: jnp.concatenate([first, rest]), params['double_blocks']['image'],
                           params['blocks'])
    merged = {name: leaf for name, leaf in params.items() if name != 'double_blocks'} | {'blocks': stacked}
    assert jax.tree.structure(merged) == jax.tree.structure(single_params)
    np.testing.assert_allclose(apply(same, LATENTS, CODES), single(merged, LATENTS, CODES), atol=2e-5)


def test_vectors_of_an_encoder_are_a_context_too():
    model, vectors = _model(context=VectorContext(WIDTH)), jax.random.normal(jax.random.key(0), (2, 4, 7))
    params = jax.eval_shape(model.init, jax.random.key(0), LATENTS, *TOLD, vectors)['params']
    assert params['context']['vectors']['kernel'].shape == (7, WIDTH)


@pytest.mark.parametrize(('options', 'given', 'said'), [({}, (), 'with a context is given none'),
                                                       ({'context': None}, (CODES,), 'without a context is given one')])
def test_a_context_is_given_to_those_that_have_one(options, given, said):
    with pytest.raises(UserError, match=said):
        jax.eval_shape(_model(**options).init, jax.random.key(0), LATENTS, *TOLD, *given)


@pytest.mark.parametrize('options', [{'context': None, 'double_depth': 1}, {'double_depth': 3}])
def test_doubled_blocks_without_context_or_single_ones_are_refused(options):
    with pytest.raises(UserError, match=r'double_depth \d needs a context and a depth above it, not 3'):
        _model(**options)
