"""What was found wrong in other code bases over codes: each one a fact that must hold here.

Told elsewhere: guidance on some channels only (DiT, SiT, LightningDiT, PixArt: `test_guidance`), the one-step posterior
used at a longer stride (VQ-Diffusion's sample_fast: `test_kernels`), plain and leave-one-out denoisers mixed up (UDLM's
code: `test_kernels`), Gumbel noise that ends (MDLM: `test_categorical`), keys used twice (hackable_diffusion's
DiscreteDDIMStep: `test_keys`), an optimizer state that is not resumed (LightningDiT: `test_end_to_end`).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from vqdit.diffusion.categorical import Absorbing, replace
from vqdit.diffusion.clock import ABSENT, GENERATED, GIVEN, TaskMixture
from vqdit.diffusion.guidance import Scale
from vqdit.diffusion.likelihood import negative_log_likelihood_bound
from vqdit.diffusion.samplers import Ancestral, EntropyBounded, FirstHitting, Ordered, Remasking, guided, sample_keys
from vqdit.diffusion.schedules import Cosine, Linear

K, L = toy.CODES, toy.LENGTH


def test_the_uniform_process_replaces_codes_and_masks_none():
    """Show-o, training/utils.py: `config.training.get("noise_type", "mask")` was always true, and all was masked."""
    codes = jnp.zeros((1, 3000), jnp.int32)
    noisy = np.asarray(replace().corrupt(jax.random.key(0), codes, jnp.full(codes.shape, 0.9), jnp.full(3000, K)))
    np.testing.assert_allclose(np.bincount(noisy[0], minlength=K + 1) / 3000, [0.4, 0.3, 0.3, 0.0], atol=0.04)


def test_the_choice_temperature_fades_in_a_straight_line():
    """Show-o and MMaDA multiply it by 1 - ratio in every step anew, so that it falls like a factorial."""
    sampler, told, keys = Ordered(4, order='confidence', choice_temperature=2.0), [], sample_keys(
        jax.random.key(0), jnp.arange(1))
    for index in range(4):
        told.append(sampler._noisy(keys, jnp.zeros((1, L)), 1.0 - index / 4))
    ratios = np.asarray(told) / np.asarray(told[0])[None]
    np.testing.assert_allclose(ratios[:, 0, 0], [1.0, 0.75, 0.5, 0.25], rtol=1e-5)


def test_a_task_without_rows_takes_none():
    """MMaDA, forward_process: the slice [-0:] of a task with no rows was the whole batch."""
    mixture = TaskMixture({'->toy': 0.0, 'toy->other': 1.0}, toy.LAYOUT.__class__(
        {'toy': toy.LAYOUT.specs['toy'], 'other': toy.LAYOUT.specs['toy']}))
    roles, clock = mixture.draw(jax.random.key(0), 7)
    np.testing.assert_array_equal(roles, np.tile([GIVEN] * L + [GENERATED] * L, (7, 1)))
    assert (clock[:, :L] == 0).all() and (clock[:, L:] > 0).all()


def test_the_weight_of_the_bound_belongs_to_the_density_of_the_masked_share():
    """Muddit weighs with 1 / share while it draws shares of density 2 / (pi sqrt(1 - share^2)): that is no bound.

    Here the integrand over t of any schedule, as a function of the masked share m, is 1 / m."""
    t = jnp.linspace(0.05, 0.95, 10)
    for schedule in (Linear(), Cosine()):
        share = 1.0 - schedule.alpha(t)
        density = 1.0 / -schedule.slope(t)
        np.testing.assert_allclose(Absorbing(schedule).weight(t) * density, 1.0 / share, rtol=1e-5)


@pytest.mark.parametrize('sampler', [Ordered(2), Ancestral(2), FirstHitting(), EntropyBounded(), Remasking(2)])
def test_every_sampler_takes_every_task_with_and_without_guidance(sampler):
    """LLaDA's generate: guidance without an attention mask was a NameError, seen by no test."""
    keys, codes = sample_keys(jax.random.key(0), jnp.arange(2)), jnp.zeros((2, L), jnp.int32)
    for kinds, guidance in itertools.product([(GENERATED,) * L, (GIVEN, GENERATED, ABSENT), (GIVEN,) * L],
                                             [1.0, 2.0, Scale(lambda t: 1.0 + t)]):
        roles = jnp.broadcast_to(jnp.array(kinds)[None], (2, L))
        run = lambda roles=roles, guidance=guidance: sampler(
            keys, guided(toy.denoiser(toy.joint()), toy.LAYOUT, roles, guidance), codes, roles, toy.LAYOUT)
        assert jax.eval_shape(run).shape == (2, L)


def test_masks_are_of_ids_and_stay_in_their_places():
    """Muddit decodes a masked text and reads it again, after which positions may have moved."""
    seen = []

    def denoiser(codes, clock):
        seen.append(codes)
        return {'toy': jnp.zeros((*codes.shape, K))}

    codes, roles = jnp.array([[0, 1, 2]] * 8), jnp.full((8, L), GENERATED)
    negative_log_likelihood_bound(jax.random.key(0), Absorbing(), denoiser, toy.LAYOUT, codes, roles)
    assert bool(jnp.all((seen[0] == codes) | (seen[0] == K)))
