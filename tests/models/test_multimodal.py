import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from vqdit.errors import UserError
from vqdit.models.attention import rotary_angles, rotate
from vqdit.models.multimodal import MultimodalDiT, fold, unfold
from vqdit.tokenizers.spec import TokenLayout, TokenSpec

LAYOUT = TokenLayout({'image': TokenSpec((4, 4), 7), 'audio': TokenSpec((4,), 5, levels=2), 'text': TokenSpec((3,), 9)})
PATCHES = FrozenDict({'image': 2, 'audio': 2})


def _model(**options):
    return MultimodalDiT(LAYOUT, **({'patches': PATCHES, 'width': 16, 'depth': 2, 'heads': 2} | options))


def _inputs(batch=2, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.concatenate([rng.integers(0, s.num_codes + 1, (batch, s.length)) for s in LAYOUT.specs.values()], 1)
    return jnp.asarray(codes, jnp.int32), jnp.asarray(rng.random(codes.shape), jnp.float32)


@functools.cache
def _untrained():
    return jax.jit(_model().init)(jax.random.key(1), *_inputs())


@functools.cache
def _awake():
    """Parameters with nothing at zero, so that every path carries a signal."""
    params = _untrained()
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape, np.float32), params)


@functools.cache
def _compiled(**options):
    return jax.jit(_model(**options).apply)


def _apply(params, inputs, **options):
    return _compiled(**options)(params, *inputs)


@pytest.mark.parametrize(('spec', 'patch'), [(TokenSpec((4, 6), 5), 2), (TokenSpec((8,), 5, levels=3), 4),
                                             (TokenSpec((2, 4, 4), 5), 2), (TokenSpec((5,), 5), 1)])
def test_fold_is_undone(spec, patch):
    tokens = jnp.arange(2 * spec.length * 3.0).reshape(2, spec.length, 3)
    folded = fold(tokens, spec, patch)
    assert folded.shape[2] == patch ** len(spec.grid) * spec.levels
    np.testing.assert_array_equal(unfold(folded, spec, patch), tokens)


def test_an_untrained_model_knows_nothing():
    """Gates and heads start at zero: uniform logits, whatever stands in the input."""
    logits = _apply(_untrained(), _inputs())
    assert {name: part.shape for name, part in logits.items()} == {
        'image': (2, 16, 7), 'audio': (2, 8, 5), 'text': (2, 3, 9)}
    assert all(float(jnp.abs(part).max()) == 0 for part in logits.values())


def test_every_token_and_its_clock_reach_every_modality():
    """Joint attention by gradients: the logits of each modality depend on the embedding of every other's tokens."""
    params, (codes, clock) = _awake(), _inputs()
    before = _apply(params, (codes, clock))
    pull = jax.jit(lambda weights: jax.vjp(lambda clock: _model().apply(params, codes, clock), clock)[1](weights))
    # Sums of the logits of one modality, one after the other.
    ones = jax.tree.map(np.ones_like, before)
    for name in LAYOUT.modalities:
        chosen = {other: weight * (other == name) * jnp.arange(1.0, weight.size + 1).reshape(weight.shape)
                  for other, weight in ones.items()}
        assert (np.abs(np.asarray(pull(chosen)[0])) > 0).all()
    changed = codes.at[:, -1].set((codes[:, -1] + 1) % 9)
    after = _apply(params, (changed, clock))
    assert all(float(jnp.abs(before[name] - after[name]).max()) > 0 for name in LAYOUT.modalities)


def test_examples_do_not_see_each_other():
    params, (codes, clock) = _awake(), _inputs()
    other = codes.at[0].set(0), clock.at[0].set(0.5)
    whole, changed = _apply(params, (codes, clock)), _apply(params, other)
    for name in LAYOUT.modalities:
        np.testing.assert_array_equal(whole[name][1], changed[name][1])
        assert float(jnp.abs(whole[name][0] - changed[name][0]).max()) > 0


def test_a_summary_tells_the_order_of_tokens_without_attention():
    """It is one place more. Were the order lost in it, two tokens that change places would leave it as it was."""
    model, (codes, clock) = _model(summaries=('text', 'image')), _inputs()
    params = jax.jit(model.init)(jax.random.key(1), codes, clock)
    assert model.places == _model().places + 2

    @jax.jit
    def summary(codes):
        named = lambda module, _: module.name in ('summary_text', 'summary_image')
        seen = model.apply(params, codes, clock, capture_intermediates=named)[1]['intermediates']
        return {name: found['__call__'][0] for name, found in seen.items()}

    swapped = codes.at[:, -1].set(codes[:, -2]).at[:, -2].set(codes[:, -1])
    before, after = summary(codes), summary(swapped)
    assert float(jnp.abs(before['summary_text'] - after['summary_text']).max()) > 0.01
    np.testing.assert_array_equal(before['summary_image'], after['summary_image'])


def test_neighbours_are_embedded_with_a_place_and_no_others_are():
    model, (codes, clock) = _model(patches=FrozenDict({}), neighbours=('image',)), _inputs()
    params = jax.jit(model.init)(jax.random.key(1), codes, clock)

    @jax.jit
    def embedded(codes):
        named = lambda module, _: module.name == 'fold_image'
        return model.apply(params, codes, clock, capture_intermediates=named)[1]['intermediates']['fold_image']

    changed = codes.at[:, 0].set((codes[:, 0] + 1) % 7)
    before, after = (embedded(x)['__call__'][0] for x in (codes, changed))
    moved = (before != after).any(axis=(0, 2)).reshape(4, 4)
    np.testing.assert_array_equal(moved, np.pad(np.ones((2, 2), bool), (0, 2)))


@pytest.mark.parametrize('remat', ['full', 'dots'])
def test_remat_changes_memory_not_gradients(remat):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-4), _slope(), _slope(remat=remat))


@functools.cache
def _slope(**options):
    loss = lambda params: sum(jnp.sum(x**2) for x in _model(**options).apply(params, *_inputs()).values())
    return jax.jit(jax.grad(loss))(_awake())


def test_unrolled_layers_compute_the_same():
    unrolled = _apply(_awake(), _inputs(), unroll=2)
    for name, logits in _apply(_awake(), _inputs()).items():
        np.testing.assert_allclose(unrolled[name], logits, atol=1e-5)


def test_gates_start_where_they_are_told():
    """At zero the trunk is the identity, and only the embeddings reach the heads."""
    table = lambda variables: np.asarray(variables['params']['blocks']['modulation_table'])
    np.testing.assert_array_equal(table(_untrained()), 0.0)
    told = jax.jit(_model(gate=0.5).init)(jax.random.key(0), *_inputs())
    shift1, scale1, gate1, shift2, scale2, gate2 = np.split(table(told), 6, axis=-1)
    assert not (shift1.any() or scale1.any() or shift2.any() or scale2.any())
    assert (gate1 == 0.5).all() and (gate2 == 0.5).all()


def test_bfloat16_computes_near_float32_and_answers_in_float32():
    full, half = _apply(_awake(), _inputs()), _apply(_awake(), _inputs(), dtype=jnp.bfloat16)
    for name in LAYOUT.modalities:
        assert half[name].dtype == jnp.float32
        np.testing.assert_allclose(half[name], full[name], atol=0.15)


def test_rotation_depends_on_distances_alone():
    """q(m) . k(n) = q(m + s) . k(n + s), on every axis."""
    rng = np.random.default_rng(0)
    query, key = (jnp.asarray(rng.normal(size=(1, 1, 1, 16)), jnp.float32) for _ in range(2))
    turn = lambda x, at: rotate(x, jnp.asarray(rotary_angles(np.array([at, [9, 9, 9, 0]]), 16))[:1])
    dot = lambda a, b: float(jnp.sum(turn(query, a) * turn(key, b)))
    assert dot([1, 2, 3, 0], [4, 0, 5, 0]) == pytest.approx(dot([3, 5, 4, 0], [6, 3, 6, 0]), abs=1e-5)
    assert dot([1, 2, 3, 0], [4, 0, 5, 0]) != pytest.approx(dot([1, 2, 3, 0], [4, 1, 5, 0]), abs=1e-3)


@pytest.mark.parametrize(('options', 'said'), [
    ({'heads': 3}, 'heads'), ({'remat': 'some'}, 'remat "some"'), ({'patches': FrozenDict({'image': 3})}, 'patch 3'),
    ({'summaries': ('txt',)}, 'modality "txt" is unknown.*text')])
def test_bad_settings_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        MultimodalDiT(**({'layout': LAYOUT, 'patches': PATCHES, 'width': 16, 'depth': 1, 'heads': 2} | options))
