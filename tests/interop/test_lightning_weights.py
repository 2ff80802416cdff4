"""LightningDiT's weight files: read, computed as its paper says in NumPy with float64, and written back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import CheckpointError, UserError
from vqdit.interop.dit import export_original, import_dit, original_layout
from vqdit.interop.lightning import turns
from vqdit.interop.safetensors_file import write_safetensors
from vqdit.interop.weights import read_weights
from vqdit.models.dit import DiT
from vqdit.models.parts import PARTS
from vqdit.models.published import lightning_dit

SIZE, WIDTH, HEADS, DEPTH, CHANNELS, CLASSES = 3, 32, 2, 2, 5, 3
HIDDEN = int(2 / 3 * 4 * WIDTH)
KINDS = {'as_published': {}, 'all': {'query_norm': 'scaled_rms', 'modulation': 'own_scales'}}


def _model(**parts):
    return DiT((SIZE, SIZE), CHANNELS, CHANNELS, 1, WIDTH, DEPTH, HEADS, classes=CLASSES,
               parts=PARTS['lightning'](**parts))


@functools.cache
def _state(kind):
    """Random tensors under the names and shapes of a LightningDiT."""
    parts, rng = KINDS[kind], np.random.default_rng(0)
    vectors = 4 if parts.get('modulation') else 6
    shapes = {'x_embedder.proj.weight': (WIDTH, CHANNELS, 1, 1), 'x_embedder.proj.bias': (WIDTH,),
              'pos_embed': (1, SIZE**2, WIDTH), 'y_embedder.embedding_table.weight': (CLASSES + 1, WIDTH),
              't_embedder.mlp.0.weight': (WIDTH, 256), 't_embedder.mlp.0.bias': (WIDTH,),
              't_embedder.mlp.2.weight': (WIDTH, WIDTH), 't_embedder.mlp.2.bias': (WIDTH,),
              'final_layer.norm_final.weight': (WIDTH,), 'final_layer.linear.weight': (CHANNELS, WIDTH),
              'final_layer.linear.bias': (CHANNELS,), 'final_layer.adaLN_modulation.1.weight': (2 * WIDTH, WIDTH),
              'final_layer.adaLN_modulation.1.bias': (2 * WIDTH,)}
    for block in range(DEPTH):
        inner = {'norm1.weight': (WIDTH,), 'norm2.weight': (WIDTH,), 'attn.qkv.weight': (3 * WIDTH, WIDTH),
                 'attn.qkv.bias': (3 * WIDTH,), 'attn.proj.weight': (WIDTH, WIDTH), 'attn.proj.bias': (WIDTH,),
                 'mlp.w12.weight': (2 * HIDDEN, WIDTH), 'mlp.w12.bias': (2 * HIDDEN,),
                 'mlp.w3.weight': (WIDTH, HIDDEN), 'mlp.w3.bias': (WIDTH,),
                 'adaLN_modulation.1.weight': (vectors * WIDTH, WIDTH), 'adaLN_modulation.1.bias': (vectors * WIDTH,)}
        if parts.get('query_norm'):
            inner |= {'attn.q_norm.weight': (WIDTH // HEADS,), 'attn.k_norm.weight': (WIDTH // HEADS,)}
        shapes |= {f'blocks.{block}.{name}': shape for name, shape in inner.items()}
    state = {name: rng.normal(scale=0.3, size=shape).astype(np.float32) for name, shape in shapes.items()}
    cosines, sines = _tables()
    return state | {'feat_rope.freqs_cos': cosines.astype(np.float32), 'feat_rope.freqs_sin': sines.astype(np.float32)}


def _tables():
    """Cosines and sines [N, d]: the first half of a head's channels by the row, the second by the column, in pairs."""
    half = WIDTH // HEADS // 2
    frequencies = 1e4 ** -(np.arange(0, half, 2) / half)
    rows, columns = (np.repeat(place.reshape(-1, 1) * frequencies, 2, axis=1) for place in np.indices((SIZE, SIZE)))
    angles = np.concatenate([rows, columns], axis=1)
    return np.cos(angles), np.sin(angles)


def _root_mean_square(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight


def _turn(x):
    cosines, sines = _tables()
    neighbours = np.stack([-x[..., 1::2], x[..., ::2]], axis=-1).reshape(x.shape)
    return x * cosines + neighbours * sines


def _silu(x):
    return x / (1 + np.exp(-x))


def _oracle(kind, x, time, label):
    """The network of one image [H, W, C] in float64, with the weights as they are stored."""
    state = {name: tensor.astype(np.float64) for name, tensor in _state(kind).items()}
    linear = lambda name, x: x @ state[f'{name}.weight'].T + state[f'{name}.bias']
    angles = time * np.exp(-np.log(1e4) * np.arange(128) / 128)
    told = linear('t_embedder.mlp.2', _silu(linear('t_embedder.mlp.0', np.append(np.cos(angles), np.sin(angles)))))
    condition = _silu(told + state['y_embedder.embedding_table.weight'][label])
    kernel = state['x_embedder.proj.weight'][:, :, 0, 0]
    x = x.reshape(SIZE**2, CHANNELS) @ kernel.T + state['x_embedder.proj.bias'] + state['pos_embed'][0]
    for number in range(DEPTH):
        block = f'blocks.{number}.'
        vectors = linear(f'{block}adaLN_modulation.1', condition).reshape(-1, WIDTH)
        shift1, scale1, gate1, shift2, scale2, gate2 = vectors if len(vectors) == 6 else (
            0, *vectors[:2], 0, *vectors[2:])
        seen = _root_mean_square(x, state[f'{block}norm1.weight']) * (1 + scale1) + shift1
        query, key, value = linear(f'{block}attn.qkv', seen).reshape(-1, 3, HEADS, WIDTH // HEADS).transpose(1, 2, 0, 3)
        if KINDS[kind].get('query_norm'):
            query = _root_mean_square(query, state[f'{block}attn.q_norm.weight'])
            key = _root_mean_square(key, state[f'{block}attn.k_norm.weight'])
        logits = _turn(query) @ _turn(key).swapaxes(1, 2) / np.sqrt(WIDTH // HEADS)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True) @ value).swapaxes(0, 1).reshape(-1, WIDTH)
        x = x + gate1 * linear(f'{block}attn.proj', mixed)
        seen = _root_mean_square(x, state[f'{block}norm2.weight']) * (1 + scale2) + shift2
        gate, up = np.split(linear(f'{block}mlp.w12', seen), 2, axis=-1)
        x = x + gate2 * linear(f'{block}mlp.w3', _silu(gate) * up)
    shift, scale = np.split(linear('final_layer.adaLN_modulation.1', condition), 2)
    seen = _root_mean_square(x, state['final_layer.norm_final.weight']) * (1 + scale) + shift
    return linear('final_layer.linear', seen).reshape(SIZE, SIZE, CHANNELS)


def _written(path, state):
    write_safetensors(path, {name: tensor for name, tensor in state.items() if tensor is not None})
    return path


@pytest.mark.parametrize('kind', KINDS)
def test_the_network_is_that_of_numpy(kind, tmp_path):
    model, params = import_dit(_written(tmp_path / 'x', _state(kind)))
    assert model == _model(**KINDS[kind])
    latents = np.random.default_rng(1).normal(size=(2, SIZE, SIZE, CHANNELS))
    times, labels = np.array([0.0, 0.7]), np.array([0, 3])
    output = jax.jit(model.apply)({'params': params}, jnp.float32(latents), jnp.float32(times), jnp.int32(labels))
    expected = np.stack([_oracle(kind, *one) for one in zip(latents, times, labels)])
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize('kind', KINDS)
def test_what_was_read_is_written_back_bit_for_bit(kind, tmp_path):
    model, params = import_dit(_written(tmp_path / 'x', _state(kind)))
    export_original(tmp_path / 'y', model, params)
    written, read = dict(read_weights(tmp_path / 'y')), _state(kind)
    assert written.keys() == read.keys()
    for name, tensor in read.items():
        np.testing.assert_allclose(written[name], tensor, rtol=0, atol=1e-6 if 'rope' in name else 0, err_msg=name)


def test_all_misfits_are_told_at_once(tmp_path):
    path = _written(tmp_path / 'x', _state('all') | {
        'blocks.0.attn.k_norm.weight': None, 'blocks.1.attn.k_norm.weight': None, 'feat_rope.freqs_sin': None,
        'blocks.1.mlp.w3.weight': np.zeros((WIDTH, 7)), 'blocks.1.attn.q_norm.bias': np.zeros(WIDTH // HEADS)})
    with pytest.raises(CheckpointError) as caught:
        import_dit(path)
    for said in ('missing: blocks.*.attn.k_norm.weight (2 times), feat_rope.freqs_sin',
                 'unexpected: blocks.*.attn.q_norm.bias', f'blocks.*.mlp.w3.weight (32, 7) instead of (32, {HIDDEN})',
                 'nearest published network is LightningDiT-B/1'):
        assert said in str(caught.value)


def test_rotary_positions_of_another_scale_are_refused(tmp_path):
    state = _state('all')
    path = _written(tmp_path / 'x', state | {'feat_rope.freqs_cos': state['feat_rope.freqs_cos'] ** 2})
    with pytest.raises(CheckpointError, match=r'freqs_cos in .* is not the table of rotary positions'):
        import_dit(path)


def test_the_layout_of_xl_1():
    model = lightning_dit('LightningDiT-XL/1')
    inputs = jnp.zeros((1, 16, 16, 32)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    shapes = original_layout(model).shapes(jax.eval_shape(model.init, jax.random.key(0), *inputs)['params'])
    assert len(shapes) == 28 * 12 + 13
    assert shapes['blocks.27.mlp.w12.weight'] == (6144, 1152) and shapes['blocks.27.mlp.w3.weight'] == (1152, 3072)
    assert shapes['x_embedder.proj.weight'] == (1152, 32, 1, 1)
    assert turns(model)['feat_rope.freqs_cos'].shape == (256, 72)


@pytest.mark.parametrize(('model', 'said'), [
    (_model(dense='plain', norm='rms'), 'norm "rms", dense "plain"'),
    (_model(modulation='shared'), 'modulation "shared"'), (_model(positions='rotary'), 'positions "rotary"'),
    (_model(frequencies='pictures'), 'frequencies "pictures"'),
    (_model().clone(registers=2, strides=True), 'registers, strides')])
def test_what_no_published_network_has_is_not_exported(model, said, tmp_path):
    with pytest.raises(UserError, match=f'no published network has {said}'):
        export_original(tmp_path / 'x', model, {})
    assert not list(tmp_path.iterdir())


def test_heads_that_cannot_be_turned_there_are_refused():
    with pytest.raises(UserError, match='heads of 2 channels have no halves of pairs'):
        original_layout(_model().clone(heads=16))
