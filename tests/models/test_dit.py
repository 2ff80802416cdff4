import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.models.attention import attend
from vqdit.models.conditions import drop_labels, timestep_features
from vqdit.models.dit import DiT, sine_cosine_positions
from vqdit.models.parts import gelu, layer_norm
from vqdit.models.published import lightning_dit, published_dit

LABELS = jnp.asarray([0, 3, 2], jnp.int32)
TIMES = jnp.asarray([0.0, 500.0, 999.0])


def _model(**options):
    return DiT(**({'size': (4, 6), 'width': 16, 'depth': 2, 'heads': 2, 'classes': 3} | options))


def _latents(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(3, 4, 6, 4)), jnp.float32)


def _abstract(model):
    inputs = jnp.zeros((1, *model.size, model.channels)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), *inputs)['params']


@functools.cache
def _params():
    """Parameters with nothing at zero, so that every path carries a signal."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), jnp.float32), _abstract(_model()))


@functools.cache
def _compiled(**options):
    return jax.jit(lambda params, *inputs: _model(**options).apply({'params': params}, *inputs))


@functools.cache
def _slope(**options):
    """The gradient of a loss on everything."""
    loss = lambda params: jnp.sum(jnp.sin(_model(**options).apply({'params': params}, _latents(), TIMES, LABELS)))
    return jax.jit(jax.grad(loss))(_params())


@pytest.mark.parametrize(('name', 'pixels', 'width', 'depth', 'patch'), [
    ('DiT-S/8', 256, 384, 12, 8), ('DiT-B/4', 256, 768, 12, 4), ('SiT-L/2', 256, 1024, 24, 2),
    ('DiT-XL/2', 512, 1152, 28, 2)])
def test_published_sizes(name, pixels, width, depth, patch):
    """18 D^2 + 15 D a block; the rest by the paper: patches, positions, timesteps, labels and no label, the end."""
    block = 18 * width**2 + 15 * width
    ends = (patch**2 * 4 + 1) * width + (width + 1) * patch**2 * 8 + 2 * width * (width + 1)
    conditions = 257 * width + (width + 1) * width + 1001 * width + (pixels // 8 // patch) ** 2 * width
    leaves = jax.tree.leaves(_abstract(published_dit(name, pixels)))
    assert sum(leaf.size for leaf in leaves) == depth * block + ends + conditions


def test_lightning_xl_1_has_as_many_parameters_as_it_says():
    """675 million, by its paper: two scales a block and 4/3 D of biases more than DiT, and latents of 32 channels."""
    width, depth, leaves = 1152, 28, jax.tree.leaves(_abstract(lightning_dit('LightningDiT-XL/1')))
    block = 18 * width**2 + 15 * width + 2 * width + 4 * width // 3
    ends = 33 * width + (width + 1) * 32 + 2 * width * (width + 1) + width
    conditions = 257 * width + (width + 1) * width + 1001 * width + 16**2 * width
    assert sum(leaf.size for leaf in leaves) == depth * block + ends + conditions == pytest.approx(675e6, rel=2e-3)


def test_xl_2_has_the_published_number_of_parameters():
    assert sum(leaf.size for leaf in jax.tree.leaves(_abstract(published_dit('DiT-XL/2')))) == 675_129_632


def test_a_fresh_model_predicts_zero_and_its_blocks_are_the_identity():
    fresh = jax.jit(_model().init)(jax.random.key(0), _latents(), TIMES, LABELS)['params']
    assert not np.any(_compiled()(fresh, _latents(), TIMES, LABELS))
    fresh['head']['kernel'] = jnp.eye(16, 32)
    output = _compiled()(fresh, _latents(), TIMES, LABELS)
    scrambled = jax.tree.map(lambda leaf: leaf + 1.0, fresh['blocks']) | {'modulation': fresh['blocks']['modulation']}
    np.testing.assert_array_equal(output, _compiled()(fresh | {'blocks': scrambled}, _latents(), TIMES, LABELS))
    assert np.any(output)


def test_positions_tell_columns_first():
    table = sine_cosine_positions((3, 5), 16)
    row, column = 2, 3
    place = table[row * 5 + column]
    frequencies = 10_000.0 ** -np.array([0, 0.25, 0.5, 0.75])
    waves = [np.sin(column * frequencies), np.cos(column * frequencies),
             np.sin(row * frequencies), np.cos(row * frequencies)]
    np.testing.assert_allclose(place, np.concatenate(waves), atol=1e-7)


def test_timestep_features():
    features = np.asarray(timestep_features(jnp.asarray([0.0, 7.0]), count=6, steps=4))
    np.testing.assert_array_equal(features[0], [1, 1, 1, 0, 0, 0])
    angles = 7.0 * 10_000.0 ** -np.array([0, 0.25, 0.5])
    np.testing.assert_allclose(features[1], np.concatenate([np.cos(angles), np.sin(angles)]), atol=1e-6)


def test_layer_norm_keeps_its_digits_where_the_mean_is_large():
    x = (np.random.default_rng(0).normal(size=(5, 64)) + np.array([0, 1, 1e2, 1e3, 1e4])[:, None]).astype(np.float32)
    wide = x.astype(np.float64)
    exact = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(layer_norm(jnp.asarray(x)), exact, atol=2e-3)
    np.testing.assert_allclose(layer_norm(jnp.asarray(x[:2])), exact[:2], atol=2e-6)


def test_gelu_is_the_tanh_form():
    x = np.linspace(-6, 6, 101)
    exact = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(gelu(jnp.asarray(x, jnp.float32)), exact, atol=1e-6)


def test_attention_is_the_same_by_any_implementation():
    heads = tuple(jax.random.normal(jax.random.key(0), (3, 2, 5, 2, 8)))
    np.testing.assert_allclose(attend(heads), attend(heads, 'xla'), atol=1e-6)


@pytest.mark.parametrize('options', [{'remat': 'full'}, {'remat': 'dots', 'unroll': 2}])
def test_remat_and_unrolled_layers_change_no_gradient(options):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4), _slope(), _slope(**options))


def test_all_parameters_learn_but_the_positions():
    slopes = dict(_slope())
    assert not np.any(slopes.pop('positions'))
    assert np.array_equal(np.any(slopes.pop('labels')['embedding'] != 0, axis=1), [True, False, True, True])
    slopes = jax.tree.map(np.asarray, slopes)
    assert all(np.any(layer) for leaf in jax.tree.leaves(slopes['blocks']) for layer in leaf)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(slopes))


def test_both_directions_of_differentiation_agree():
    """<u, J v> = <J^T u, v>: losses that differentiate forward through the network work too."""
    @jax.jit
    def both(u, v, *point):
        model = lambda x, t: _model().apply({'params': _params()}, x, t, LABELS)
        backward = jax.vjp(model, *point)[1](u)
        return jnp.vdot(u, jax.jvp(model, point, v)[1]), sum(jnp.vdot(a, b) for a, b in zip(backward, v))
    rng = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    forward, backward = both(draw(3, 4, 6, 8), (draw(3, 4, 6, 4), draw(3)), _latents(), TIMES / 1000)
    assert float(forward) == pytest.approx(float(backward), rel=1e-4)


def test_images_do_not_see_each_other_but_their_labels_and_times():
    whole = _compiled()(_params(), _latents(), TIMES, LABELS)
    lone = _latents().at[::2].set(0.0), TIMES.at[::2].set(1.0), LABELS.at[::2].set(1)
    np.testing.assert_allclose(whole[1], _compiled()(_params(), *lone)[1], atol=1e-5)
    for other in ((TIMES[::-1], LABELS), (TIMES, LABELS[::-1])):
        assert np.abs(whole - _compiled()(_params(), _latents(), *other))[0].max() > 1e-3


def test_bfloat16_computes_near_float32_and_answers_in_float32():
    full = _compiled()(_params(), _latents(), TIMES, LABELS)
    half = _compiled(dtype=jnp.bfloat16)(_params(), _latents(), TIMES, LABELS)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, full, atol=0.05 * float(jnp.abs(full).max()))


def test_labels_are_dropped_at_the_rate():
    labels = jnp.arange(20_000, dtype=jnp.int32) % 10
    dropped = np.asarray(drop_labels(jax.random.key(0), labels, 0.1, null=10))
    assert (dropped == 10).mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 20_000))
    assert np.array_equal(dropped[dropped != 10], np.asarray(labels)[dropped != 10])


@pytest.mark.parametrize(('options', 'said'), [
    ({'heads': 3}, 'heads'), ({'width': 18}, 'by 4'), ({'patch': 4}, r'\(4, 6\)'), ({'remat': 'some'}, 'remat "some"')])
def test_bad_settings_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        _model(**options)


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(UserError, match='Did you mean "DiT-XL/2"'):
        published_dit('DiT-XXL/2')
