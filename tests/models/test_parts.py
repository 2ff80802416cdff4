"""Trunks of other parts than the published ones: what each computes, beside NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.models.attention import rotary_angles
from vqdit.models.blocks import Block
from vqdit.models.dit import DiT
from vqdit.models.parts import NORMS, PARTS, Parts

WIDTH, HEADS, HIDDEN = 16, 2, 24
SPECIMENS = {'published': Parts(), 'modern': PARTS['modern'](), 'lightning': PARTS['lightning'](),
             'unshifted': PARTS['lightning'](query_norm='scaled_rms', modulation='own_scales', positions='rotary')}
ANGLES = rotary_angles(np.indices((2, 3)).reshape(2, -1).T, WIDTH // HEADS)


def _norm(x, kind, scale=1.0):
    if kind == 'layer':
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x if kind == 'none' else x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale


def _turned(x, angles):
    pairs = (x[..., :x.shape[-1] // 2] + 1j * x[..., x.shape[-1] // 2:]) * np.exp(1j * angles)[None, :, None]
    return np.concatenate([pairs.real, pairs.imag], axis=-1)


def _dense(x, params, axes=1):
    return np.tensordot(x, params['kernel'], axes) + params.get('bias', 0.0)


def _block(parts, params, x, condition, angles):
    """A block in float64."""
    scale = lambda name, params: params.get(name, {}).get('scale', 1.0)
    if parts.modulation == 'shared':
        modulation = condition + params['modulation_table']
    else:
        modulation = _dense(condition, params['modulation'])
    vectors = np.split(modulation, 4 if parts.modulation == 'own_scales' else 6, axis=-1)
    shift1, scale1, gate1, shift2, scale2, gate2 = vectors if len(vectors) == 6 else (
        0.0, *vectors[:2], 0.0, *vectors[2:])
    attention = params['attention']
    seen = _norm(x, parts.norm, scale('norm1', params)) * (1 + scale1) + shift1
    query, key, value = np.moveaxis(_dense(seen, attention['qkv']), 2, 0)
    query, key = (_norm(head, parts.query_norm, scale(name, attention)) for head, name in (
        (query, 'query_norm'), (key, 'key_norm')))
    query, key = (_turned(query, angles), _turned(key, angles)) if parts.positions != 'table' else (query, key)
    logits = np.einsum('bnhd,bmhd->bhnm', query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    mixed = np.einsum('bhnm,bmhd->bnhd', weights / weights.sum(-1, keepdims=True), value)
    x = x + gate1 * _dense(mixed, attention['out'], 2)
    seen = _norm(x, parts.norm, scale('norm2', params)) * (1 + scale2) + shift2
    if parts.network == 'swiglu':
        gate, up = np.split(_dense(seen, params['mlp']['gate_up']), 2, axis=-1)
        hidden = gate / (1 + np.exp(-gate)) * up
    else:
        up = _dense(seen, params['mlp']['up'])
        hidden = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
    return x + gate2 * _dense(hidden, params['mlp']['out'])


@pytest.mark.parametrize('name', SPECIMENS)
def test_a_block_is_that_of_numpy(name):
    parts, rng = SPECIMENS[name], np.random.default_rng(0)
    block = Block(WIDTH, HEADS, HIDDEN, parts)
    x = rng.normal(size=(2, 6, WIDTH))
    condition = rng.normal(size=(2, 1, 6 * WIDTH if parts.modulation == 'shared' else WIDTH))
    angles = None if parts.positions == 'table' else ANGLES
    inputs = tuple(value if value is None else jnp.asarray(value, jnp.float32) for value in (x, condition, angles))
    shapes = jax.eval_shape(block.init, jax.random.key(0), *inputs)['params']
    params = jax.tree.map(lambda leaf: 0.3 * rng.normal(size=leaf.shape), shapes)
    output, _ = jax.jit(block.apply)({'params': jax.tree.map(jnp.float32, params)}, *inputs)
    np.testing.assert_allclose(output, _block(parts, params, x, condition, angles), rtol=0, atol=2e-5)


def _model(**options):
    return DiT(**({'size': (4, 6), 'width': WIDTH, 'depth': 3, 'heads': HEADS, 'classes': 3} | options))


@functools.cache
def _awake(**options):
    """Parameters with nothing at zero, and the compiled model."""
    model, rng = _model(**options), np.random.default_rng(1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *_inputs())['params']
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes)
    return params, jax.jit(lambda params, *inputs: model.apply({'params': params}, *inputs))


def _inputs():
    latents = jnp.asarray(np.random.default_rng(2).normal(size=(2, 4, 6, 4)), jnp.float32)
    return latents, jnp.asarray([0.0, 500.0]), jnp.asarray([1, 3], jnp.int32)


def test_rotary_positions_alone_tell_places_apart():
    """A trunk that is blind to order would answer latents that change places by answers that do."""
    (latents, *told), (params, apply) = _inputs(), _awake(parts=PARTS['modern']())
    assert 'positions' not in params and 'positions' in _awake()[0]
    swapped = apply(params, latents[:, :, ::-1], *told)[:, :, ::-1]
    assert np.abs(swapped - apply(params, latents, *told)).max() > 1e-3


def test_registers_take_part_and_are_not_answered():
    plain, (params, apply) = _awake()[0], _awake(registers=3)
    assert params['registers'].shape == (3, WIDTH)
    assert sum(map(jnp.size, jax.tree.leaves(params))) == sum(map(jnp.size, jax.tree.leaves(plain))) + 3 * WIDTH
    output = apply(params, *_inputs())
    assert output.shape == (2, 4, 6, 8)
    assert np.abs(output - apply(params | {'registers': 0 * params['registers']}, *_inputs())).max() > 1e-3


@pytest.mark.parametrize('name', ['modern', 'lightning'])
def test_a_fresh_trunk_of_any_parts_is_the_identity(name):
    model = _model(parts=SPECIMENS[name], registers=2)
    params = jax.jit(model.init)(jax.random.key(0), *_inputs())['params']
    run = jax.jit(lambda params: model.apply({'params': params}, *_inputs()))
    params['head']['kernel'] = jnp.eye(WIDTH, 32)
    kept = ('modulation', 'modulation_table')
    scrambled = {name: leaf if name in kept else jax.tree.map(lambda x: x + 1.0, leaf)
                 for name, leaf in params['blocks'].items()}
    np.testing.assert_array_equal(run(params), run(params | {'blocks': scrambled}))


def test_the_parts_of_a_trunk_have_as_many_weights_as_the_published_ones():
    """SwiGLU has three matrices of 8/3 the width where GELU has two of 4; scales and biases are few."""
    count = lambda parts: sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(
        _model(width=96, parts=parts).init, jax.random.key(0), *_inputs())['params']['blocks']))
    assert count(PARTS['lightning']()) == count(Parts()) + 3 * 96 * (2 + 16 / 3 - 4)


@pytest.mark.parametrize(('changes', 'said'), [
    ({'norm': 'batch'}, 'the norm of the blocks "batch" is unknown; choose one of none, layer, rms, scaled_rms'),
    ({'network': 'swiglue'}, 'Did you mean "swiglu"'), ({'positions': 'rope'}, 'choose one of table, rotary, both')])
def test_an_unknown_part_is_told_the_known_ones(changes, said):
    with pytest.raises(UserError, match=said):
        Parts(**changes)


def test_heads_of_odd_width_cannot_be_turned():
    with pytest.raises(UserError, match='heads of 5 channels cannot be turned'):
        _model(width=20, heads=4, parts=PARTS['modern']())
    assert set(NORMS) >= {'none', 'layer'}
