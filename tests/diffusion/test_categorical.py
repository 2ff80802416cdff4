import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vqdit.diffusion.categorical import Absorbing, draw_codes
from vqdit.diffusion.schedules import Cosine, Geometric, Linear, Partial, Polynomial, Table
from vqdit.errors import UserError

SCHEDULES = [Linear(), Cosine(), Polynomial(2.0)]
MASK = 5


@pytest.mark.parametrize('schedule', [*SCHEDULES, Geometric(), Table((1.0, 0.7, 0.2, 0.0))])
def test_schedule_runs_from_one_to_zero_and_its_slope_is_its_derivative(schedule):
    assert float(schedule.alpha(jnp.float32(0))) == pytest.approx(1, abs=1e-6)
    assert float(schedule.alpha(jnp.float32(1))) == pytest.approx(0, abs=1e-6)
    t = jnp.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(schedule.slope(t), jax.vmap(jax.grad(schedule.alpha))(t), rtol=1e-4)


@pytest.mark.parametrize(('make', 'said'), [(lambda: Table((1.0, 0.5)), 'fall from 1 to 0'),
                                            (lambda: Table((1.0, 1.0, 0.0)), 'fall from 1 to 0'),
                                            (lambda: Geometric(2.0, 1.0), 'low < high')])
def test_schedules_that_miss_their_ends_are_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


def test_a_partial_schedule_stops_where_it_says():
    schedule, ends = Partial(Cosine(), 0.3), jnp.array([0.0, 1.0])
    np.testing.assert_allclose(schedule.alpha(ends), [1.0, 0.3], atol=1e-6)
    np.testing.assert_allclose(schedule.slope(ends), 0.7 * Cosine().slope(ends), atol=1e-6)


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('t', [0.1, 0.5, 0.9])
def test_corrupt_follows_the_marginal(schedule, t):
    draws = 100_000
    codes = jnp.full((1, draws), 2, jnp.int32)
    noisy = Absorbing(schedule).corrupt(jax.random.key(0), codes, jnp.full((1, draws), t), np.full(draws, MASK))
    kept = int((noisy == 2).sum())
    assert kept + int((noisy == MASK).sum()) == draws
    alpha = float(schedule.alpha(jnp.float32(t)))
    assert stats.binomtest(kept, draws, alpha).pvalue > 1e-3


def test_corrupt_keeps_everything_at_zero_and_nothing_at_one():
    codes = jnp.arange(1000, dtype=jnp.int32)[None] % MASK
    clock = jnp.where(jnp.arange(1000) < 500, 0.0, 1.0)[None]
    noisy = Absorbing().corrupt(jax.random.key(1), codes, clock, np.full(1000, MASK))
    np.testing.assert_array_equal(noisy[:, :500], codes[:, :500])
    assert (noisy[:, 500:] == MASK).all()


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_two_steps_back_are_one_step_back(schedule):
    """Chapman-Kolmogorov: staying masked from t to s to r is staying masked from t to r."""
    process = Absorbing(schedule)
    t, s, r = jnp.float32(0.9), jnp.float32(0.6), jnp.float32(0.2)
    stay = lambda a, b: 1 - float(process.reveal_probability(a, b))
    assert stay(t, s) * stay(s, r) == pytest.approx(stay(t, r), rel=1e-5)
    assert float(process.reveal_probability(t, jnp.float32(0))) == pytest.approx(1)


def test_step_reveals_with_the_probability_of_bayes():
    """q(z_s = x | z_t = mask, x) = q(z_t = mask | z_s = x) q(z_s = x | x) / q(z_t = mask | x)."""
    process, t, s, draws = Absorbing(Cosine()), jnp.float32(0.8), jnp.float32(0.5), 100_000
    alpha_t, alpha_s = float(process.schedule.alpha(t)), float(process.schedule.alpha(s))
    bayes = (1 - alpha_t / alpha_s) * alpha_s / (1 - alpha_t)
    masks = np.full(draws, MASK)
    noisy = process.step(jax.random.key(2), jnp.full((1, draws), MASK), jnp.full((1, draws), 3), t, s, masks)
    assert stats.binomtest(int((noisy == 3).sum()), draws, bayes).pvalue > 1e-3


def test_step_leaves_revealed_tokens_alone():
    noisy = jnp.array([[1, 2, MASK]])
    after = Absorbing().step(jax.random.key(0), noisy, jnp.array([[4, 4, 4]]), jnp.float32(0.5), jnp.float32(0.0),
                             np.full(3, MASK))
    np.testing.assert_array_equal(after, [[1, 2, 4]])


def test_loss_is_weighted_cross_entropy_of_masked_tokens_only():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 5)), jnp.float32)
    codes, noisy = jnp.array([[1, 2, 3]]), jnp.array([[1, MASK, MASK]])
    clock = jnp.array([[0.25, 0.25, 0.5]])
    loss = Absorbing().loss(logits, codes, noisy, clock, MASK)
    log_p = np.asarray(logits, np.float64)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    np.testing.assert_allclose(loss, [[0, -log_p[0, 1, 2] / 0.25, -log_p[0, 2, 3] / 0.5]], rtol=1e-5)


def test_draws_reach_the_tail():
    """2^17 classes of 1e-8 each beside a likely one: their count stays within its Poisson interval (MDLM, whose
    Gumbel noise ends where it is likeliest to matter, and JAX's own default mode do not reach as far)."""
    tail, share, draws = 2**17, 1e-8, 2**14
    logits = jnp.log(jnp.full(tail + 1, share).at[0].set(1 - tail * share))
    count = jax.jit(jax.vmap(lambda key: draw_codes(key, logits) > 0))
    found = sum(int(jnp.sum(count(jax.random.split(jax.random.key(i), draws // 4)))) for i in range(4))
    low, high = stats.poisson.interval(0.999, tail * share * draws)
    assert low <= found <= high


@pytest.mark.parametrize('classes', [3, 5, 17])
def test_draws_follow_the_softmax_at_any_number_of_classes(classes):
    logits = np.random.default_rng(classes).normal(size=classes) * 2
    logits[0] = -np.inf
    draws = draw_codes(jax.random.key(1), jnp.broadcast_to(jnp.asarray(logits, jnp.float32)[None], (20_000, classes)))
    counts = np.bincount(np.asarray(draws), minlength=classes)
    expected = np.exp(logits) / np.exp(logits).sum() * 20_000
    assert len(counts) == classes and counts[0] == 0
    assert stats.chisquare(counts[1:], expected[1:]).pvalue > 1e-3


def test_temperature_zero_takes_the_likeliest():
    assert int(draw_codes(jax.random.key(0), jnp.array([0.0, 3.0, 1.0]), temperature=0)) == 1
