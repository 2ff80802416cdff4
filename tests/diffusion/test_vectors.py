"""Gaussian processes over code vectors, with the exact posterior of a toy in place of a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from scipy import stats

from vqdit.diffusion.clock import ABSENT, GENERATED, GIVEN
from vqdit.diffusion.gaussian import PREDICTIONS, Exploding, Flow, Gaussian, predicted
from vqdit.diffusion.gaussian.code_space import CodeSpace
from vqdit.diffusion.gaussian.code_vectors import CodeVectors
from vqdit.diffusion.guidance import Scale, guided, hide
from vqdit.diffusion.samplers import DDIM, Heun, VectorSampler, grids, sample_keys
from vqdit.diffusion.vector_likelihood import vector_bound
from vqdit.tokenizers.spec import TokenLayout, TokenSpec

TABLE = np.array([[[-1.2, 0.1], [0.3, 1.1], [0.9, -1.2]]], np.float32)
VECTORS = CodeVectors(toy.LAYOUT, {'toy': TABLE})
LAYOUT = TokenLayout({'a': TokenSpec((2,), 3, levels=2), 'b': TokenSpec((3,), 4)})
RNG = np.random.default_rng(0)
WIDE = CodeVectors(LAYOUT, {'a': RNG.normal(size=(2, 3, 3)).astype(np.float32),
                            'b': RNG.normal(size=(1, 4, 2)).astype(np.float32)})


def test_codes_go_there_and_back():
    codes = jnp.asarray(np.concatenate([RNG.integers(0, 3, (5, 4)), RNG.integers(0, 4, (5, 3))], axis=1), jnp.int32)
    vectors = jax.jit(WIDE.of)(codes)
    assert vectors.shape == (5, 7, 3) and not np.asarray(vectors)[:, ~WIDE.used].any()
    np.testing.assert_array_equal(vectors[:, 1], WIDE.tables['a'][1][codes[:, 1]])  # the second level of a position
    np.testing.assert_array_equal(jax.jit(WIDE.nearest)(vectors + 0.01), codes)
    assert not np.asarray(WIDE.of(jnp.asarray(LAYOUT.mask_ids)[None])).any(), 'a mask has no vector'


def test_the_mean_is_that_of_the_codes():
    logits = {'a': jnp.asarray(RNG.normal(size=(2, 4, 3)), jnp.float32),
              'b': jnp.asarray(RNG.normal(size=(2, 3, 4)), jnp.float32)}
    mean = np.asarray(jax.jit(WIDE.mean)(logits))
    shares = np.asarray(jax.nn.softmax(logits['a']))
    np.testing.assert_allclose(mean[:, 3], shares[:, 3] @ WIDE.tables['a'][1], rtol=1e-5)
    sure = {name: 100.0 * jax.nn.one_hot(jnp.argmax(part, axis=-1), part.shape[-1]) for name, part in logits.items()}
    codes = LAYOUT.join({name: jnp.argmax(part, axis=-1) for name, part in logits.items()})
    np.testing.assert_allclose(WIDE.mean(sure), WIDE.of(codes), rtol=1e-5)


def _denoiser(path, roles):
    """The logits of log p(x_i | z) by enumeration, from what the network is shown."""
    p, states = jnp.asarray(toy.joint(), jnp.float32), jnp.asarray(toy.STATES)

    def denoiser(seen, clock):
        alpha, sigma = path.alpha(clock)[..., None], jnp.maximum(path.sigma(clock), 1e-6)[..., None]
        z = seen * jnp.sqrt(alpha**2 + sigma**2)
        gap = (z[:, :, None] - alpha[:, :, None] * jnp.asarray(TABLE[0])[None, None]) / sigma[:, :, None]
        each = jnp.where((roles == ABSENT)[:1, :, None], 0.0, -0.5 * jnp.sum(gap**2, axis=-1))
        of_state = jnp.log(p)[None] + sum(each[:, i][:, states[:, i]] for i in range(toy.LENGTH))
        picks = [jax.nn.logsumexp(jnp.where((states[:, i] == k)[None], of_state, -jnp.inf), axis=1)
                 for i in range(toy.LENGTH) for k in range(toy.CODES)]
        return {'toy': jnp.stack(picks, axis=1).reshape(len(z), toy.LENGTH, toy.CODES)}
    return denoiser


def _law(sampler, roles, codes, draws=3000):
    roles, codes = (jnp.broadcast_to(jnp.asarray(x, jnp.int32)[None], (draws, toy.LENGTH)) for x in (roles, codes))
    denoiser = _denoiser(sampler.space.process.path, roles)
    run = jax.jit(lambda keys: sampler(keys, denoiser, codes, roles, toy.LAYOUT))
    return np.asarray(run(sample_keys(jax.random.key(0), jnp.arange(draws))))


def _fits(found, law, draws):
    """Chi-square, with the states that are expected less than five times taken together."""
    rare = law * draws < 5
    found, law = (np.append(x[~rare], x[rare].sum()) * draws for x in (found, law))
    assert stats.chisquare(found[law > 0], law[law > 0]).pvalue > 1e-3


@pytest.mark.parametrize(('path', 'solver', 'grid'), [
    (Flow(), Heun(), grids.uniform(24)), (Exploding(80.0), Heun(), grids.karras(24, Exploding(80.0), 0.02)),
    (Flow(), DDIM(1.0), grids.uniform(100))])
def test_a_perfect_network_gives_the_joint_law(path, solver, grid):
    space = CodeSpace(Gaussian(path, PREDICTIONS['clean']), VECTORS)
    samples = _law(VectorSampler(space, solver, grid), [GENERATED] * 3, [toy.CODES] * 3)
    _fits(toy.frequencies(samples), toy.joint(), len(samples))


def test_given_tokens_condition_and_absent_ones_do_not():
    """p(x_2 | x_0 = 1) with x_1 absent; the given token comes back as it was and the absent one as a mask."""
    space = CodeSpace(Gaussian(Flow(), PREDICTIONS['clean']), VECTORS)
    samples = _law(VectorSampler(space, Heun(), grids.uniform(24)), [GIVEN, ABSENT, GENERATED], [1, 0, toy.CODES])
    assert (samples[:, 0] == 1).all() and (samples[:, 1] == toy.CODES).all()
    fits = toy.STATES[:, 0] == 1
    truth = np.bincount(toy.STATES[fits, 2], toy.joint()[fits])
    _fits(np.bincount(samples[:, 2]) / len(samples), truth / truth.sum(), len(samples))


@pytest.mark.parametrize('path', [Flow(), Exploding(200.0)])
def test_the_bound_is_the_likelihood_of_the_codes(path):
    """Tight for the exact denoiser, for joint and for conditional likelihoods, and comparable with bounds of codes."""
    p, state, draws = toy.joint(), 11, 8000
    space = CodeSpace(Gaussian(path, PREDICTIONS['clean']), VECTORS)
    codes = jnp.broadcast_to(jnp.asarray(toy.STATES[state], jnp.int32)[None], (draws, toy.LENGTH))
    same_first = toy.STATES[:, 0] == toy.STATES[state, 0]
    run = jax.jit(lambda key, roles: vector_bound(key, space, _denoiser(path, roles), codes, roles))
    for first, truth in ((GENERATED, -np.log(p[state])), (GIVEN, -np.log(p[state] / p[same_first].sum()))):
        roles = jnp.broadcast_to(jnp.asarray([first, GENERATED, GENERATED])[None], codes.shape)
        values = np.asarray(run(jax.random.key(3), roles), np.float64)
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(draws) + 2e-3


def test_what_the_network_sees():
    """Generated tokens at variance 1, given ones clean, absent ones as zeros whatever stands there; filling hidden."""
    space = CodeSpace(Gaussian(Exploding(80.0, 1.0)), WIDE)
    roles = jnp.asarray([[GIVEN, ABSENT, GENERATED, GENERATED, GIVEN, ABSENT, GENERATED]])
    clock = jnp.where(roles == GIVEN, 0.0, 1.0)
    z, clean = jnp.full((1, 7, 3), 40.0), jnp.full((1, 7, 3), 2.0)
    seen = np.asarray(space.seen(z, clean, roles, clock))
    assert not seen[0, ~WIDE.used].any() and not seen[0, [1, 5]].any()
    np.testing.assert_allclose(seen[0, [2, 3]], 40 / np.hypot(1, 80), rtol=1e-6)
    np.testing.assert_array_equal(seen[0, 0], 2.0)


@pytest.mark.parametrize('name', PREDICTIONS)
def test_vector_answers_are_read_as_the_process_says(name):
    """A network that knows x and answers in any form leads to x."""
    path, kind = Flow(), PREDICTIONS[name]
    space = CodeSpace(Gaussian(path, kind), VECTORS, logits=False)
    codes = jnp.asarray([[0, 2, 1]])

    def denoiser(seen, clock):
        alpha, sigma = path.alpha(clock)[..., None], jnp.maximum(path.sigma(clock), 1e-6)[..., None]
        noise = (seen * jnp.sqrt(alpha**2 + sigma**2) - alpha * VECTORS.of(codes)) / sigma
        return {'toy': predicted(kind, VECTORS.of(codes), noise, path, clock)}

    sampler = VectorSampler(space, DDIM(), grids.uniform(4, 0.99))
    run = jax.jit(lambda keys: sampler(keys, denoiser, codes, jnp.full((1, 3), GENERATED), toy.LAYOUT))
    np.testing.assert_array_equal(run(sample_keys(jax.random.key(0), jnp.arange(1))), codes)


def test_no_key_is_used_twice():
    space = CodeSpace(Gaussian(Flow(), PREDICTIONS['clean']), VECTORS)
    roles, codes = jnp.full((2, 3), GENERATED), jnp.zeros((2, 3), jnp.int32)
    denoiser = lambda z, clock: {'toy': jnp.zeros((2, 3, 3))}
    sampler = VectorSampler(space, DDIM(1.0), grids.uniform(2))
    with jax.debug_key_reuse(True):
        for function in (lambda key: sampler(sample_keys(key, jnp.arange(2)), denoiser, codes, roles, toy.LAYOUT),
                         lambda key: vector_bound(key, space, denoiser, codes, roles)):
            jax.jit(function).trace(jax.random.key(0))


def test_guidance_of_vectors_is_linear_and_hides_with_zeros():
    roles = jnp.asarray([[GIVEN, GENERATED, GENERATED]])
    z, clock = jnp.ones((1, 3, 2)), jnp.asarray([[0.0, 0.5, 0.5]])
    denoiser = lambda z, clock: {'toy': z[:, :1] * 2.0 + z + clock[:, :1, None]}
    space = CodeSpace(Gaussian(), VECTORS, logits=False)
    found = guided(denoiser, toy.LAYOUT, roles, Scale(3.0), comparable=space.comparable)(z, clock)['toy']
    free = denoiser(hide(z, roles == GIVEN, toy.LAYOUT), jnp.asarray([[1.0, 0.5, 0.5]]))['toy']
    np.testing.assert_allclose(found, free + 3.0 * (denoiser(z, clock)['toy'] - free), rtol=1e-6)
