import jax
import jax.numpy as jnp
import numpy as np
import toy

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import ABSENT, GENERATED, GIVEN
from vqdit.diffusion.likelihood import negative_log_likelihood_bound
from vqdit.diffusion.schedules import Cosine, Linear


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


def test_estimate_agrees_with_the_truth_for_every_schedule():
    probabilities, draws = toy.joint(), 20_000
    x = toy.STATES[7]
    codes = jnp.broadcast_to(jnp.asarray(x, jnp.int32)[None], (draws, toy.LENGTH))
    roles = jnp.full(codes.shape, GENERATED)
    for schedule in (Linear(), Cosine()):
        estimates = np.asarray(negative_log_likelihood_bound(
            jax.random.key(0), Absorbing(schedule), toy.denoiser(probabilities), toy.LAYOUT, codes, roles), np.float64)
        error = estimates.std() / np.sqrt(draws)
        assert abs(estimates.mean() + np.log(probabilities[7])) < 4 * error


def test_given_tokens_condition_and_cost_nothing():
    probabilities, draws = toy.joint(), 20_000
    x = toy.STATES[11]
    codes = jnp.broadcast_to(jnp.asarray(x, jnp.int32)[None], (draws, toy.LENGTH))
    roles = jnp.broadcast_to(jnp.array([GIVEN, GENERATED, GENERATED])[None], codes.shape)
    estimates = np.asarray(negative_log_likelihood_bound(
        jax.random.key(1), Absorbing(), toy.denoiser(probabilities), toy.LAYOUT, codes, roles), np.float64)
    same_first = toy.STATES[:, 0] == x[0]
    truth = -np.log(probabilities[11] / probabilities[same_first].sum())
    assert abs(estimates.mean() - truth) < 4 * estimates.std() / np.sqrt(draws)


def test_absent_tokens_do_not_count():
    probabilities, draws = toy.joint(), 20_000
    x = toy.STATES[11]
    codes = jnp.broadcast_to(jnp.asarray(x, jnp.int32)[None], (draws, toy.LENGTH))
    roles = jnp.broadcast_to(jnp.array([ABSENT, ABSENT, GENERATED])[None], codes.shape)
    estimates = np.asarray(negative_log_likelihood_bound(
        jax.random.key(2), Absorbing(), toy.denoiser(probabilities), toy.LAYOUT, codes, roles), np.float64)
    truth = -np.log(probabilities[toy.STATES[:, 2] == x[2]].sum())
    assert abs(estimates.mean() - truth) < 4 * estimates.std() / np.sqrt(draws)
