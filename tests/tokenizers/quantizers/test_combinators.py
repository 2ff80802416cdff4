"""Projected, MultiHead, Grouped, Residual, MultiScale, and quantizers from a config."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from driver import init, lookup, normal, quantize, train

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers import (
    NO_CODE,
    BinarySphericalQuantizer,
    FiniteScalarQuantizer,
    Grouped,
    Identity,
    LookupFreeQuantizer,
    MultiHead,
    MultiScale,
    Projected,
    Residual,
    VectorQuantizer,
    build_quantizer,
)
from vqdit.tokenizers.quantizers.bounds import ClippedBound, SymmetricBound
from vqdit.tokenizers.quantizers.codebooks import GradientCodebook
from vqdit.tokenizers.quantizers.estimators import CodeOnly, DirectionalNoise, Rotation
from vqdit.tokenizers.quantizers.metrics import Angular, Euclidean
from vqdit.tokenizers.quantizers.starts import KMeansStart

KEY = jax.random.key


def _vector(num_codes=8, width=4):
    return VectorQuantizer(num_codes=num_codes, dimension=width, metric=Euclidean(), decay=0.5)


LEVELS = Residual((_vector(), _vector(), _vector()), delay=0)


@functools.cache
def _residual(steps=3):
    """Latents, and a residual quantizer after a few steps on them."""
    z = normal(8, 8, 4)
    variables = init(LEVELS, KEY(0), (8, 8, 4))
    for step in range(steps):
        out, variables = train(LEVELS, variables, z, KEY(step))
    return z, variables, out


EVERY = {
    'projected': (Projected(_vector(), 6), (2, 8, 6)),
    'heads': (MultiHead(_vector(), 3), (2, 8, 12)),
    'grouped': (Grouped((FiniteScalarQuantizer((5, 5)), LookupFreeQuantizer(3))), (2, 8, 5)),
    'residual scalars': (Residual(tuple(FiniteScalarQuantizer((5, 4), ClippedBound()) for _ in range(3))), (2, 8, 2)),
    'residual bits': (Residual((LookupFreeQuantizer(4), LookupFreeQuantizer(4))), (2, 8, 4)),
    'residual heads': (Residual((MultiHead(LookupFreeQuantizer(2), 2), LookupFreeQuantizer(4))), (2, 8, 4)),
    'scales': (MultiScale(FiniteScalarQuantizer((5, 5)), ((1, 1), (2, 3), (4, 5)), mixers=2), (2, 4, 5, 2)),
}


@pytest.mark.parametrize('name', EVERY)
def test_decoding_from_codes_is_decoding_from_vectors_bit_for_bit(name):
    """Reference case 30, and the index round trip of every combinator."""
    quantizer, shape = EVERY[name]
    variables = init(quantizer, KEY(0), shape)
    out = quantize(quantizer, variables, normal(*shape))
    np.testing.assert_array_equal(out.vectors, lookup(quantizer, variables, out.codes))
    assert out.codes.shape[-1] == quantizer.levels and out.vectors.shape == shape
    assert out.codes.shape[1:-1] == quantizer.token_grid(shape[1:-1])
    assert int(out.codes.max()) < quantizer.num_codes and int(out.codes.min()) >= 0


def test_heads_share_one_codebook():
    quantizer, shape = EVERY['heads']
    variables = init(quantizer, KEY(0), shape)
    z = normal(*shape)
    _, variables = train(quantizer, variables, z, KEY(0))
    codes = quantize(quantizer, variables, z).codes
    alone = quantize(_vector(), {'codebook': variables['codebook']['quantizer']}, z.reshape(2, 8, 3, 4)).codes
    np.testing.assert_array_equal(codes, alone[..., 0])
    assert variables['codebook']['quantizer']['sums'].shape == (8, 4)


def test_groups_are_their_quantizers_side_by_side():
    quantizer, shape = EVERY['grouped']
    z = normal(*shape)
    out = quantize(quantizer, {}, z)
    parts = quantize(FiniteScalarQuantizer((5, 5)), {}, z[..., :2]), quantize(LookupFreeQuantizer(3), {}, z[..., 2:])
    np.testing.assert_array_equal(out.codes, np.concatenate([part.codes for part in parts], axis=-1))
    assert float(out.loss) == pytest.approx(sum(float(part.loss) for part in parts) / 2, rel=1e-6)
    assert quantizer.num_codes == 25 and quantizer.bits_per_token == pytest.approx(np.log2(25) + 3)


def test_every_level_commits_the_encoder_and_the_decoder_sees_the_identity():
    """Reference case 28, finding 9: level losses that subtract straight-through vectors have no gradient below."""
    z, variables, _ = _residual()

    def losses(z):
        out = LEVELS.apply(variables, z)
        residual, values = z, []
        for level in range(3):
            state = {'codebook': variables['codebook'][f'quantizers_{level}']}
            part = _vector().apply(state, residual)
            values.append(part.loss)
            residual = residual - jax.lax.stop_gradient(part.vectors)
        return jnp.stack(values), (out.loss, out.vectors)

    slopes = jax.jit(jax.jacobian(lambda z: losses(z)[0]))(z)
    assert (np.abs(slopes).reshape(3, -1).max(axis=1) > 0).all()
    whole = jax.jit(jax.grad(lambda z: losses(z)[1][0]))(z)
    np.testing.assert_allclose(whole, slopes.mean(0), atol=1e-7)
    weights = normal(8, 8, 4, seed=9)
    through = jax.jit(jax.grad(lambda z: jnp.sum(losses(z)[1][1] * weights)))(z)
    np.testing.assert_array_equal(through, weights)


def test_more_levels_come_closer_and_prefixes_decode():
    """Reference case 28: prefix decoding for n = 1 .. Q, and `NO_CODE` adds nothing."""
    z, variables, _ = _residual()
    codes = quantize(LEVELS, variables, z).codes
    errors = []
    for n in range(1, 4):
        prefix = lookup(LEVELS, variables, codes[..., :n])
        errors.append(float(np.mean((prefix - z) ** 2)))
        dropped = jnp.where(jnp.arange(3) < n, codes, NO_CODE)
        np.testing.assert_array_equal(lookup(LEVELS, variables, dropped), prefix)
    assert errors[0] > errors[1] > errors[2]


def test_dropout_drops_levels_of_whole_items_and_hides_them_from_the_codebooks():
    """Reference case 28: per-sample dropout, reproducible from the key."""
    z, variables, _ = _residual()
    quantizer = LEVELS.clone(dropout=1.0)
    out, after = train(quantizer, variables, z, KEY(1))
    again, _ = train(quantizer, variables, z, KEY(1))
    np.testing.assert_array_equal(out.codes, again.codes)
    kept = np.sum(np.asarray(out.codes) != NO_CODE, axis=-1)
    assert (kept == kept[:, :1]).all() and kept.min() == 1 and len(np.unique(kept)) > 1
    np.testing.assert_array_equal(out.vectors, lookup(LEVELS, variables, out.codes))
    counts = [np.asarray(after['codebook'][f'quantizers_{i}']['counts']).sum() for i in range(3)]
    before = [np.asarray(variables['codebook'][f'quantizers_{i}']['counts']).sum() for i in range(3)]
    expected = [0.5 * b + 0.5 * np.sum(kept > i) for i, b in enumerate(before)]
    np.testing.assert_allclose(counts, expected, rtol=0.2)
    assert counts[2] < counts[1] < counts[0]


def test_dropout_may_follow_the_steps():
    """From always to never within two steps."""
    quantizer = LEVELS.clone(dropout=optax.linear_schedule(1.0, 0.0, 2))
    z = normal(8, 8, 4)
    variables, dropped = init(quantizer, KEY(0), (8, 8, 4)), []
    for step in range(3):
        out, variables = train(quantizer, variables, z, KEY(step))
        dropped.append(bool((out.codes == NO_CODE).any()))
    assert dropped[0] and not dropped[2]


def test_training_quantizes_as_evaluation_does():
    """Reference case 29: no estimator of a level drifts into the residual of the next."""
    z, variables, _ = _residual()
    for estimator in (Rotation(), DirectionalNoise()):
        quantizer = LEVELS.clone(estimator=estimator)
        out, _ = train(quantizer, variables, z, KEY(0))
        np.testing.assert_array_equal(out.codes, quantize(LEVELS, variables, z).codes)


def test_levels_start_one_after_another_and_not_from_exhausted_residuals():
    """Reference case 19: with as many codes as tokens, the second level would start from zeros."""
    quantizer = Residual((_vector(16), _vector(16)), delay=2)
    variables = init(quantizer, KEY(0), (16, 4))
    started = []
    for step in range(3):
        out, variables = train(quantizer, variables, normal(16, 4, seed=step), KEY(step))
        started.append([bool(variables['codebook'][f'quantizers_{i}']['initialised']) for i in range(2)])
        assert np.isfinite(out.loss)
    assert started == [[True, False], [True, False], [True, True]]
    codes = lookup(_vector(16), {'codebook': variables['codebook']['quantizers_1']}, jnp.arange(16)[:, None])
    distances = np.linalg.norm(np.asarray(codes)[:, None] - codes[None], axis=-1) + 9 * np.eye(16)
    assert distances.min() > 1e-3 and np.linalg.norm(codes, axis=-1).min() > 1e-2


def test_one_object_is_one_codebook_for_all_its_levels():
    shared = _vector()
    quantizer = Residual((shared, shared), delay=0)
    variables = init(quantizer, KEY(0), (64, 4))
    assert list(variables['codebook']) == ['quantizers_0']
    _, variables = train(quantizer, variables, normal(64, 4), KEY(0))
    assert int(variables['codebook']['quantizers_0']['steps']) == 2


def test_an_estimator_around_the_levels_teaches_their_codebooks():
    """DiVeQ over a residual quantizer: `CodeOnly` levels let its gradient through to every codebook."""
    level = VectorQuantizer(num_codes=8, dimension=4, metric=Euclidean(), estimator=CodeOnly(), commitment=0.0,
                            codebook=functools.partial(GradientCodebook, weight=0.0))
    quantizer = Residual((level, level.clone()), delay=0, estimator=DirectionalNoise())
    z = normal(64, 4)
    variables = init(quantizer, KEY(0), (64, 4))

    def loss(params):
        call = quantizer.apply(variables | {'params': params}, z, train=True, key=KEY(0), mutable=['codebook'])
        return jnp.sum(call[0].vectors ** 2)

    slopes = jax.jit(jax.grad(loss))(variables['params'])
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(slopes))
    assert len(jax.tree.leaves(slopes)) == 2


def test_one_scale_is_the_quantizer_itself():
    """Reference case 31: the single-scale case equals the plain quantizer; non-square grids."""
    inner = FiniteScalarQuantizer((5, 4))
    z = normal(2, 3, 5, 2)
    out, plain = quantize(MultiScale(inner, ((3, 5),)), {}, z), quantize(inner, {}, z)
    np.testing.assert_array_equal(out.codes, plain.codes.reshape(2, 15, 1))
    np.testing.assert_array_equal(out.vectors, plain.vectors)


def test_fine_scales_quantize_what_coarse_ones_left_and_prefixes_decode():
    """arXiv:2404.02905, algorithm 1; with nothing lost in the codes, the last scale makes up for all before."""
    quantizer = MultiScale(LookupFreeQuantizer(2), ((1,), (3,), (6,)))
    z = normal(2, 6, 2)
    out = quantize(quantizer, {}, z)
    coarse = np.sign(z.mean(axis=1))
    np.testing.assert_array_equal(lookup(quantizer, {}, out.codes[:, :1]), np.repeat(coarse[:, None], 6, axis=1))
    assert quantizer.token_grid((6,)) == (10,)
    exact = MultiScale(Identity(2), ((2,), (6,)))
    np.testing.assert_allclose(quantize(exact, {}, z).vectors, z, atol=1e-6)


def test_hidden_tokens_do_not_reach_coarse_scales():
    """Reference case 25."""
    quantizer = MultiScale(LookupFreeQuantizer(2), ((1,), (4,)))
    z, mask = normal(2, 4, 2), np.array([[True, True, False, False]] * 2)
    for filler in (0.0, 50.0):
        out = quantize(quantizer, {}, np.where(mask[..., None], z, filler), mask)
        np.testing.assert_array_equal(out.vectors[:, :2], quantize(
            quantizer, {}, np.where(mask[..., None], z, 0.0), mask).vectors[:, :2])
        np.testing.assert_array_equal(lookup(quantizer, {}, out.codes[:, :1])[:, 0], np.sign(z[:, :2].mean(axis=1)))


def test_wrong_combinations_are_refused():
    with pytest.raises(UserError, match=r'dimensions \[4, 3\]'):
        Residual((_vector(), LookupFreeQuantizer(3)))
    with pytest.raises(UserError, match='at least one'):
        Grouped(())
    with pytest.raises(UserError, match='one rank'):
        MultiScale(LookupFreeQuantizer(2), ((1,), (2, 2)))
    with pytest.raises(UserError, match='the last of grids'):
        MultiScale(LookupFreeQuantizer(2), ((1,), (4,))).apply({}, normal(2, 5, 2))
    with pytest.raises(UserError, match='clipped'):
        Residual((FiniteScalarQuantizer((5, 5)),)).apply({}, normal(3, 2))


@pytest.mark.parametrize(('level', 'remedy'), [
    (VectorQuantizer(num_codes=8, dimension=4), 'metric="euclidean"'), (BinarySphericalQuantizer(4), 'clipped')])
def test_levels_on_the_unit_sphere_are_refused_wherever_they_stand(level, remedy):
    """They would add unit vectors to what is left, however little it is."""
    for levels in ((level, level.clone()), (_vector(), level)):
        with pytest.raises(UserError, match=remedy):
            init(Residual(levels), KEY(0), (8, 4))


@pytest.mark.parametrize('around', [lambda level: MultiHead(level, 2), lambda level: Grouped((_vector(), level))])
def test_a_residual_asks_the_parts_of_its_levels(around):
    """Whether they can be levels: neither heads nor groups hide the unit sphere or a squashing bound."""
    sphere, squashed = VectorQuantizer(num_codes=8, dimension=4), FiniteScalarQuantizer((5,) * 4)
    for level, remedy in ((sphere, 'metric="angular" or metric="euclidean"'), (squashed, 'clipped')):
        with pytest.raises(UserError, match=remedy):
            init(Residual((around(_vector()), around(level))), KEY(0), (8, 8))


def test_heads_and_groups_of_levels_are_levels_of_heads_and_groups():
    """Parts know how small the rest is: bits and scalars in parts refine as they do alone."""
    bits, scalars, z = LookupFreeQuantizer(2), FiniteScalarQuantizer((5, 4), ClippedBound()), normal(2, 8, 4)
    vectors = lambda quantizer: quantize(quantizer, {}, z).vectors
    twice = lambda level: Residual((level, level), delay=0)
    np.testing.assert_array_equal(vectors(twice(MultiHead(bits, 2))), vectors(twice(LookupFreeQuantizer(4))))
    np.testing.assert_array_equal(vectors(twice(Grouped((bits, scalars)))),
                                  vectors(Grouped((twice(bits), twice(scalars)))))


@pytest.mark.parametrize('around', [lambda sphere: sphere, lambda sphere: MultiHead(sphere, 2),
                                    lambda sphere: Grouped((sphere, sphere.clone())),
                                    lambda sphere: Projected(sphere, 6)])
def test_scales_on_the_unit_sphere_are_refused(around):
    """With the error after three scales above that after two (0.12 against 0.04 on flat latents, measured).

    The cosine of VAR compares directions and keeps the lengths of codes, which is `Angular`; a single scale refines
    nothing; binary codes on the sphere are Infinity's (arXiv:2412.04431).
    """
    sphere = VectorQuantizer(num_codes=8, dimension=4)
    with pytest.raises(UserError, match=r'scales.*metric="angular"'):
        MultiScale(around(sphere), ((1,), (4,)))
    assert MultiScale(around(sphere), ((4,),)).levels == around(sphere).levels
    assert MultiScale(around(sphere.clone(metric=Angular())), ((1,), (4,))).token_grid((4,)) == (5,)
    assert MultiScale(BinarySphericalQuantizer(4), ((1,), (4,))).num_codes == 16


def test_a_state_of_another_quantizer_is_refused():
    """By Flax, which names the variable and both shapes, or the one that is missing."""
    z = normal(4, 4)
    with pytest.raises(Exception, match='codebook'):
        _vector().apply({'codebook': {}}, z)
    other = init(_vector(16), KEY(0), (4, 4))
    with pytest.raises(UserError, match='16'):
        _vector().apply(other, z)


def test_configs_name_quantizers_and_their_parts():
    quantizer = build_quantizer({
        'name': 'residual', 'copies': 2, 'dropout': 0.5,
        'quantizer': {'name': 'vector', 'num_codes': 16, 'dimension': 4, 'metric': 'angular', 'estimator': 'rotation',
                      'start': {'name': 'k_means', 'iterations': 3}, 'codebook': {'name': 'gradient', 'weight': 0.5}}})
    level = quantizer.quantizers[1]
    assert quantizer.levels == 2 and quantizer.dropout == 0.5 and quantizer.bits_per_token == 8
    assert (level.metric, level.start, level.estimator) == (Angular(), KMeansStart(3), Rotation())
    assert level.codebook.keywords == {'weight': 0.5}
    scalars = build_quantizer({'name': 'multi_scale', 'grids': [[1, 1], [2, 2]],
                               'quantizer': {'name': 'finite_scalar', 'scalar_levels': [4, 2], 'bound': 'symmetric'}})
    assert scalars.grids == ((1, 1), (2, 2)) and scalars.quantizer.bound == SymmetricBound()
    schedule = build_quantizer({'name': 'lookup_free', 'entropy': {
        'name': 'linear', 'init_value': 3.0, 'end_value': 1.0, 'transition_steps': 2}}).entropy
    assert [float(schedule(step)) for step in range(4)] == [3, 2, 1, 1]


@pytest.mark.parametrize('options, message', [
    ({'name': 'remapped', 'quantizer': {'name': 'vector'}, 'num_codes': 8}, 'quantizer.name "remapped" is unknown'),
    ({'name': 'vectr'}, 'quantizer.name "vectr" is unknown.*Did you mean "vector"'),
    ({'name': 'vector', 'num_code': 3}, 'quantizer.num_code is no option.*Did you mean "num_codes"'),
    ({'name': 'vector', 'start': 'kmeans'}, 'quantizer.start.name "kmeans" is unknown.*"k_means"'),
    ({'name': 'vector', 'start': {'name': 'k_means', 'rounds': 3}}, 'quantizer.start.*rounds'),
    ({'name': 'projected', 'quantizer': {'name': 'vector'}}, 'quantizer: .*dimension'),
    ({'name': 'residual', 'copies': 2}, 'quantizer.quantizers.0.name "" is unknown'),
    ({'name': 'grouped', 'quantizers': [{'name': 'nothing'}]}, r'quantizer.quantizers.0.name "nothing"')])
def test_misspelt_configs_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        build_quantizer(options)
