"""No key is used twice, in any sampler or loss: JAX's own checker looks at the traced programs."""

import jax
import jax.numpy as jnp
import pytest
import toy

from vqdit.diffusion.categorical import Absorbing, ByModality, CodeDistance, MaskAndReplace, Uniform, replace
from vqdit.diffusion.clock import GENERATED
from vqdit.diffusion.gaussian import Flow
from vqdit.diffusion.likelihood import masked_count_bound, negative_log_likelihood_bound
from vqdit.diffusion.samplers import (
    DDIM,
    Ancestral,
    Churn,
    DPMSolverPlusPlusSDE,
    EntropyBounded,
    EulerMaruyama,
    FirstHitting,
    ForwardBackward,
    Heun,
    LeaveOneOutGibbs,
    Ordered,
    Remasking,
    TauLeaping,
    grids,
    on_the_unsure,
    sample_keys,
    solve,
)
from vqdit.diffusion.schedules import Linear, Partial

ROLES, CODES = jnp.full((2, toy.LENGTH), GENERATED), jnp.full((2, toy.LENGTH), toy.CODES, jnp.int32)
NEAR = replace(CodeDistance.of(jnp.arange(3.0)[:, None]))
HYBRID = MaskAndReplace(Linear(), Uniform(Partial(Linear(), 0.5)))
SPLIT = ByModality({'toy': NEAR}, toy.LAYOUT)


def _denoiser(codes, clock):
    return {'toy': jnp.zeros((*codes.shape, toy.CODES))}


def _sampled(sampler):
    return lambda key: sampler(sample_keys(key, jnp.arange(2)), _denoiser, CODES, ROLES, toy.LAYOUT)


def _solved(solver):
    return lambda key: solve(solver, lambda z, t: z, Flow(), jnp.ones((2, 1, 1)), grids.uniform(3, 0.9),
                             sample_keys(key, jnp.arange(2)))


def _bounded(process):
    return lambda key: negative_log_likelihood_bound(key, process, _denoiser, toy.LAYOUT, CODES % 3, ROLES)


@pytest.mark.parametrize('function', [
    *map(_sampled, [Ancestral(2), Ancestral(2, process=NEAR), Ancestral(2, process=HYBRID), Ordered(2),
                    Ordered(2, order='confidence', choice_temperature=1.0), FirstHitting(), EntropyBounded(),
                    Remasking(2, focus=on_the_unsure), TauLeaping(2, process=HYBRID),
                    Ancestral(3, process=SPLIT, corrector=LeaveOneOutGibbs(SPLIT)),
                    Ancestral(3, corrector=ForwardBackward(Absorbing()))]),
    *map(_solved, [DDIM(1.0), EulerMaruyama(), DPMSolverPlusPlusSDE(), Churn(Heun())]),
    *map(_bounded, [Absorbing(), HYBRID, SPLIT]),
    lambda key: masked_count_bound(key, _denoiser, toy.LAYOUT, CODES % 3, ROLES),
])
def test_no_key_is_used_twice(function):
    with jax.debug_key_reuse(True):
        jax.jit(function).trace(jax.random.key(0))


def test_the_checker_sees_a_key_used_twice():
    twice = lambda key: jax.random.uniform(key) + jax.random.normal(key)
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        jax.jit(twice).trace(jax.random.key(0))
