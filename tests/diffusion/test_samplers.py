import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from vqdit.diffusion.clock import ABSENT, GENERATED, GIVEN
from vqdit.diffusion.samplers import Ancestral, Ordered, guided, sample_keys
from vqdit.errors import UserError

DRAWS = 20_000


def _sample(sampler, probabilities, roles=None, codes=None, draws=DRAWS, seed=0, denoiser=None):
    roles = jnp.full((draws, toy.LENGTH), GENERATED) if roles is None else roles
    codes = jnp.full((draws, toy.LENGTH), toy.CODES, jnp.int32) if codes is None else codes
    keys = sample_keys(jax.random.key(seed), jnp.arange(draws))
    run = jax.jit(lambda k, c, r: sampler(k, denoiser or toy.denoiser(probabilities), c, r, toy.LAYOUT))
    return np.asarray(run(keys, codes, roles))


def _noise_floor(probabilities):
    """Four standard errors of the total variation of a perfect sampler."""
    return 4 * 0.5 * np.sqrt(probabilities * (1 - probabilities) / DRAWS).sum() / np.sqrt(len(probabilities)) + \
        0.5 * np.sqrt(2 / np.pi) * np.sqrt(probabilities * (1 - probabilities) / DRAWS).sum()


def test_one_token_a_step_in_random_order_is_exact():
    p = toy.joint()
    law = toy.frequencies(_sample(Ordered(steps=toy.LENGTH), p))
    assert toy.total_variation(law, p) < _noise_floor(p)


def test_ancestral_error_shrinks_with_the_steps():
    p = toy.joint()
    errors = [toy.total_variation(toy.frequencies(_sample(Ancestral(steps=steps), p)), p) for steps in (1, 4, 16)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    # Between one shot, which knows only the marginals, and the noise floor.
    marginals = toy.posterior(p, np.full(toy.LENGTH, toy.CODES))
    independent = np.prod([marginals[i, toy.STATES[:, i]] for i in range(toy.LENGTH)], axis=0)
    assert errors[0] == pytest.approx(toy.total_variation(independent, p), abs=_noise_floor(p))


def test_confidence_order_is_biased_even_with_a_perfect_model():
    p = toy.joint()
    law = toy.frequencies(_sample(Ordered(steps=toy.LENGTH, order='confidence'), p))
    assert toy.total_variation(law, p) > 5 * _noise_floor(p)


def test_hot_choices_make_confidence_order_random():
    p = toy.joint()
    sampler = Ordered(steps=toy.LENGTH, order='confidence', choice_temperature=1e6)
    assert toy.total_variation(toy.frequencies(_sample(sampler, p)), p) < _noise_floor(p)


def test_conditional_law():
    p = toy.joint()
    roles = jnp.broadcast_to(jnp.array([GIVEN, GENERATED, GENERATED])[None], (DRAWS, 3))
    codes = jnp.broadcast_to(jnp.array([1, toy.CODES, toy.CODES])[None], (DRAWS, 3))
    law = toy.frequencies(_sample(Ordered(3), p, roles, codes))
    truth = np.where(toy.STATES[:, 0] == 1, p, 0)
    assert toy.total_variation(law, truth / truth.sum()) < _noise_floor(truth / truth.sum())


@pytest.mark.parametrize('sampler', [Ordered(3), Ancestral(4)])
def test_a_sample_depends_on_its_index_alone(sampler):
    p, roles = toy.joint(), jnp.full((4, 3), GENERATED)
    whole = _sample(sampler, p, draws=8)
    run = lambda indices: np.asarray(sampler(sample_keys(jax.random.key(0), indices), toy.denoiser(p),
                                             jnp.full((4, 3), toy.CODES, jnp.int32), roles, toy.LAYOUT))
    np.testing.assert_array_equal(run(jnp.arange(4, 8)), whole[4:])


def test_guidance_moves_the_law_to_its_closed_form():
    """One token given, one generated: p(x | c)^w p(x)^(1 - w), normalised."""
    p, scale = toy.joint(), 2.0
    roles = jnp.broadcast_to(jnp.array([GIVEN, GENERATED, ABSENT])[None], (DRAWS, 3))
    codes = jnp.broadcast_to(jnp.array([1, toy.CODES, toy.CODES])[None], (DRAWS, 3))
    denoiser = guided(toy.denoiser(p), toy.LAYOUT, roles, scale)
    samples = _sample(Ordered(1), p, roles, codes, denoiser=denoiser)
    conditional = toy.posterior(p, np.array([1, toy.CODES, toy.CODES]))[1]
    marginal = toy.posterior(p, np.full(3, toy.CODES))[1]
    truth = conditional**scale * marginal ** (1 - scale)
    law = np.bincount(samples[:, 1], minlength=toy.CODES) / DRAWS
    assert toy.total_variation(law, truth / truth.sum()) < 0.01


@pytest.mark.parametrize('make', [lambda: Ordered(0), lambda: Ancestral(0), lambda: Ordered(3, order='best')])
def test_bad_settings_are_refused(make):
    with pytest.raises(UserError):
        make()


def test_the_denoiser_runs_only_for_steps_that_reveal_a_token():
    calls = []

    def counting(codes, clock):
        jax.debug.callback(lambda: calls.append(1))
        return toy.denoiser(toy.joint())(codes, clock)

    roles = jnp.broadcast_to(jnp.array([GIVEN, GENERATED, ABSENT])[None], (4, 3))
    codes = jnp.zeros((4, toy.LENGTH), jnp.int32)
    _sample(Ordered(steps=9), toy.joint(), roles, codes, draws=4, denoiser=counting)
    jax.effects_barrier()
    assert len(calls) == 1
