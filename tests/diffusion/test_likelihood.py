import functools

import jax
import jax.numpy as jnp
import mixture
import numpy as np
import pytest
import toy

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import ABSENT, GENERATED, GIVEN, stratified_times
from vqdit.diffusion.flow_likelihood import flow_log_likelihood, hutchinson_divergence
from vqdit.diffusion.gaussian import Trigonometric
from vqdit.diffusion.likelihood import (
    estimate,
    masked_count_bound,
    negative_log_likelihood_bound,
    pointwise_mutual_information,
)
from vqdit.diffusion.schedules import Cosine, Linear

ABSORBING, DRAWS = Absorbing(), 20_000


def _bound_by_quadrature(probabilities: np.ndarray, x: np.ndarray) -> float:
    """Equation (3) in float64: Gauss-Legendre over t, all 2^L masks by enumeration."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    total = 0.0
    for node, weight in zip(nodes, weights):
        t = 0.5 * (node + 1)
        for bits in np.ndindex(*(2,) * toy.LENGTH):
            masked = np.array(bits, bool)
            chance = t ** masked.sum() * (1 - t) ** (~masked).sum()
            table = toy.posterior(probabilities, np.where(masked, toy.CODES, x))
            total += 0.5 * weight * chance / t * -np.log(table[np.arange(toy.LENGTH), x])[masked].sum()
    return total


def test_bound_is_exact_for_the_exact_posterior():
    probabilities = toy.joint()
    for state in (0, 5, 13, 26):
        assert abs(_bound_by_quadrature(probabilities, toy.STATES[state]) + np.log(probabilities[state])) < 1e-10


@functools.partial(jax.jit, static_argnums=3)
def _bounds(key, codes, roles, process):
    codes, roles = (jnp.broadcast_to(row[None], (DRAWS, toy.LENGTH)) for row in (codes, roles))
    if process is None:
        return masked_count_bound(key, toy.denoiser(toy.joint()), toy.LAYOUT, codes, roles)
    return negative_log_likelihood_bound(key, process, toy.denoiser(toy.joint()), toy.LAYOUT, codes, roles)


def _estimates(state, roles, seed, process=ABSORBING):
    """Of the same state many times; without a process by counting masked tokens."""
    codes, roles = jnp.asarray(toy.STATES[state], jnp.int32), jnp.asarray(roles, jnp.int32)
    return np.asarray(_bounds(jax.random.key(seed), codes, roles, process), np.float64)


@pytest.mark.parametrize('schedule', [Linear(), Cosine()])
def test_estimate_agrees_with_the_truth_for_every_schedule(schedule):
    estimates = _estimates(7, [GENERATED] * 3, 0, Absorbing(schedule))
    assert abs(estimates.mean() + np.log(toy.joint()[7])) < 4 * estimates.std() / np.sqrt(DRAWS)


def test_given_tokens_condition_and_cost_nothing():
    p, estimates = toy.joint(), _estimates(11, [GIVEN, GENERATED, GENERATED], 1)
    truth = -np.log(p[11] / p[toy.STATES[:, 0] == toy.STATES[11, 0]].sum())
    assert abs(estimates.mean() - truth) < 4 * estimates.std() / np.sqrt(DRAWS)


def test_absent_tokens_do_not_count():
    estimates = _estimates(11, [ABSENT, ABSENT, GENERATED], 2)
    truth = -np.log(toy.joint()[toy.STATES[:, 2] == toy.STATES[11, 2]].sum())
    assert abs(estimates.mean() - truth) < 4 * estimates.std() / np.sqrt(DRAWS)


def test_counting_masked_tokens_has_the_same_mean_with_less_variance():
    values = _estimates(7, [GENERATED] * 3, 3, None)
    assert abs(values.mean() + np.log(toy.joint()[7])) < 4 * values.std() / np.sqrt(DRAWS)
    assert values.std() < 0.8 * _estimates(7, [GENERATED] * 3, 0).std()
    mean, margin = estimate(jnp.asarray(values))
    assert margin == pytest.approx(1.96 * values.std(ddof=1) / np.sqrt(len(values)), rel=1e-3)
    assert estimate(jnp.asarray(values)).bits(3).mean == pytest.approx(float(mean) / 3 / np.log(2), rel=1e-5)


def test_chain_rule_of_the_exact_toy():
    """-log p(a, b) = -log p(a) - log p(b | a), each by its own bound, in both orders."""
    counted = lambda roles: estimate(jnp.asarray(_estimates(11, roles, 3, None)))
    whole = counted([GENERATED] * 3)
    for first in ([0], [1, 2]):
        alone = [GENERATED if i in first else ABSENT for i in range(3)]
        rest = [GIVEN if i in first else GENERATED for i in range(3)]
        parts = [counted(roles) for roles in (alone, rest)]
        margin = np.sqrt(sum(float(part.margin) ** 2 for part in (whole, *parts)))
        assert abs(float(whole.mean) - sum(float(part.mean) for part in parts)) < 2 * margin
    assert abs(float(whole.mean) + np.log(toy.joint()[11])) < 2 * float(whole.margin)


def test_pointwise_mutual_information():
    p, x = toy.joint(), toy.STATES[11]
    codes = jnp.broadcast_to(jnp.asarray(x, jnp.int32)[None], (DRAWS, toy.LENGTH))
    roles = jnp.broadcast_to(jnp.array([GIVEN, GENERATED, GENERATED])[None], codes.shape)
    bound = lambda key, codes, roles: masked_count_bound(key, toy.denoiser(p), toy.LAYOUT, codes, roles)
    found = estimate(jax.jit(lambda key: pointwise_mutual_information(key, bound, codes, roles))(jax.random.key(5)))
    both = p[(toy.STATES[:, 1:] == x[1:]).all(1)].sum()
    truth = np.log(p[11] / p[toy.STATES[:, 0] == x[0]].sum() / both)
    assert abs(float(found.mean) - truth) < 2 * float(found.margin)


def test_stratified_times_have_less_variance_than_independent_ones():
    """Of the mean of t^2 over a batch of 16: by the square of the batch for smooth functions, at least by the batch."""
    keys = jax.random.split(jax.random.key(9), 500)
    together = jax.jit(jax.vmap(lambda key: jnp.mean(stratified_times(key, 16) ** 2)))(keys)
    apart = jax.jit(jax.vmap(lambda key: jnp.mean(jax.random.uniform(key, (16,)) ** 2)))(keys)
    assert np.var(together) < np.var(apart) / 16


def test_stratified_noise_levels_make_the_bound_less_noisy():
    """The mean over a batch of 8 has a variance strictly below that of 8 batches of one, and the same mean.

    Of three tokens that are always equal, so that what a noise level costs differs: the variances are 2.7 and 3.5 times
    log(3)^2 / 8 by hand.
    """
    codes = jnp.zeros((8, toy.LENGTH), jnp.int32)
    denoiser = toy.denoiser(np.all(toy.STATES[:, :1] == toy.STATES, axis=1) / toy.CODES)
    bound = lambda key, rows: negative_log_likelihood_bound(
        key, Absorbing(), denoiser, toy.LAYOUT, codes[:rows], jnp.full((rows, toy.LENGTH), GENERATED))
    keys = jax.random.split(jax.random.key(11), 4000)
    together = jax.jit(jax.vmap(lambda key: jnp.mean(bound(key, 8))))(keys)
    apart = jax.jit(jax.vmap(jax.vmap(lambda key: bound(key, 1)[0])))(jax.vmap(lambda k: jax.random.split(k, 8))(keys))
    apart = jnp.mean(apart, axis=1)
    assert np.var(together) < 0.9 * np.var(apart)
    assert np.var(apart) == pytest.approx(3.5 * np.log(3) ** 2 / 8, rel=0.1)
    error = np.sqrt((np.var(together) + np.var(apart)) / 4000)
    assert abs(float(jnp.mean(together) - jnp.mean(apart))) < 4 * error


def test_flow_likelihood_is_the_density_of_the_mixture():
    with jax.enable_x64(True):
        path, x = Trigonometric(), jnp.linspace(-2.0, 2.0, 8).reshape(8, 1, 1)
        x = jnp.concatenate([x, x[::-1] + 0.3], axis=1)
        grid = jnp.linspace(1e-3, 1.0, 129)
        truth = jnp.sum(mixture.log_density(path, x, grid[0]), axis=(1, 2))
        model = mixture.clean_mean(path)
        exact = jax.jit(lambda x: flow_log_likelihood(model, path, x, grid))(x)
        np.testing.assert_allclose(exact, truth, atol=1e-4)
        guess = jax.jit(lambda x, key: flow_log_likelihood(model, path, x, grid, hutchinson_divergence(key)))(
            x, jax.random.key(0))
        # The two places do not touch each other, so that random signs are exact here.
        np.testing.assert_allclose(guess, truth, atol=1e-4)
