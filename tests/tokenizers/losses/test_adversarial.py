import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.tokenizers.discriminators import MultiPeriodDiscriminator, PatchDiscriminator, SpectralDiscriminator
from vqdit.tokenizers.losses.adversarial import (
    GAMES,
    Hinge,
    LeastSquares,
    NonSaturating,
    adaptive_weight,
    feature_matching_loss,
    gradient_penalty,
    lecam_penalty,
    lecam_start,
    ramp,
)

REAL, FAKE = [jnp.asarray([2.0, 0.5])], [jnp.asarray([-0.5, 3.0])]


@pytest.mark.parametrize('game, discriminator, generator', [
    (Hinge(), (0.5 / 2 + (0.5 + 4) / 2) / 2, -1.25),
    (LeastSquares(), (1 + 0.25) / 2 + (0.25 + 9) / 2, (2.25 + 4) / 2),
    (NonSaturating(), np.mean(np.log1p(np.exp([-2, -0.5]))) + np.mean(np.log1p(np.exp([-0.5, 3]))),
     np.mean(np.log1p(np.exp([0.5, -3]))))])
def test_games_by_hand(game, discriminator, generator):
    """Reference case 32; the targets of the non-saturating game are not swapped, as they are in LlamaGen."""
    assert float(game.discriminator(REAL, FAKE)) == pytest.approx(discriminator, rel=1e-6)
    assert float(game.generator(FAKE)) == pytest.approx(generator, rel=1e-6)


@pytest.mark.parametrize('game', [kind() for kind in GAMES.values()])
def test_the_sides_pull_the_logits_apart(game):
    """Reference case 32: the discriminator wants real up and fake down, the generator fake up."""
    both = jax.grad(lambda r, f: game.discriminator([r], [f]), argnums=(0, 1))
    real, fake = both(jnp.zeros(2), jnp.zeros(2))
    assert (real <= 0).all() and (fake >= 0).all() and (jnp.abs(real) + jnp.abs(fake)).min() > 0
    assert (jax.grad(lambda f: game.generator([f]))(jnp.zeros(2)) < 0).all()


def test_the_gradient_penalty_of_a_linear_discriminator_is_the_square_of_its_weights():
    """Reference case 33."""
    weights = np.random.default_rng(0).normal(size=(6,)).astype(np.float32)
    penalty = gradient_penalty(lambda x: [x @ weights], np.ones((4, 6), np.float32))
    assert float(penalty) == pytest.approx(np.sum(weights**2), rel=1e-6)


def test_lecam_keeps_averages_and_draws_towards_the_other_side():
    """Reference case 33, arXiv:2104.03310, eq. 6: the averages are state, handed in and back."""
    first, state = lecam_penalty(lecam_start(), REAL, FAKE, decay=0.9)
    assert float(first) == pytest.approx((4 + 0.25) / 2 + 0.25 / 2)
    assert (float(state.real), float(state.fake)) == pytest.approx((0.125, 0.125))
    second, _ = lecam_penalty(state, REAL, FAKE, decay=0.9)
    expected = (1.875**2 + 0.375**2) / 2 + 0.625**2 / 2
    assert float(second) == pytest.approx(expected, rel=1e-6)


def test_the_adaptive_weight_balances_gradients_and_is_bounded():
    """Reference case 32: finite where the discriminator has no gradient, and nothing where the data has none."""
    tree = lambda size: {'kernel': jnp.full((4,), size), 'bias': jnp.zeros(2)}
    assert float(adaptive_weight(tree(3.0), tree(1.0))) == pytest.approx(3, rel=1e-3)
    assert float(adaptive_weight(tree(3.0), tree(0.0))) == pytest.approx(1e4)
    assert float(adaptive_weight(tree(0.0), tree(1.0))) == 0


def test_a_ramp_is_zero_before_its_start_and_continuous():
    """Reference case 32."""
    np.testing.assert_allclose([float(ramp(jnp.asarray(s), 10, 4)) for s in (0, 10, 11, 14, 99)], [0, 0, 0.25, 1, 1])


def test_matched_features_teach_the_generator_alone():
    a, b = [jnp.asarray([1.0, 2.0])], [jnp.asarray([0.0, 4.0])]
    value, (real, fake) = jax.value_and_grad(feature_matching_loss, argnums=(0, 1))(a, b)
    assert float(value) == pytest.approx(1.5)
    assert (real[0] == 0).all() and (fake[0] != 0).all()


@pytest.mark.parametrize('discriminator, shape', [
    (PatchDiscriminator(width=4, layers=2), (2, 12, 16, 3)), (PatchDiscriminator(width=4, layers=1), (2, 32, 1)),
    (MultiPeriodDiscriminator(periods=(2, 3), width=2), (2, 101)),
    (SpectralDiscriminator((32, 16), width=2), (2, 100))])
def test_discriminators_judge_every_item_alone_and_reach_the_data(discriminator, shape):
    """Reference cases 32, 38: gradients of both games reach their own side, and no other item of the batch."""
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    params = jax.jit(discriminator.init)(jax.random.key(0), x)
    judge = lambda x: discriminator.apply(params, x).logits
    first = lambda x: jnp.sum(jnp.stack([jnp.sum(logit[0]) for logit in judge(x)]))
    slope = np.asarray(jax.jit(jax.grad(first))(x))
    assert np.abs(slope[0]).max() > 0 and np.abs(slope[1]).max() == 0
    judgement = jax.eval_shape(discriminator.apply, params, x)
    assert judgement.features and all(logit.shape[0] == 2 for logit in judgement.logits)


def test_neither_side_trains_the_other():
    """Reference case 32: the discriminator's loss after `stop_gradient` leaves the generator alone."""
    discriminator = PatchDiscriminator(width=4, layers=1)
    x = np.ones((1, 8, 8, 1), np.float32)
    params = jax.jit(discriminator.init)(jax.random.key(0), x)

    def losses(scale, params):
        judge = lambda x: discriminator.apply(params, x).logits
        return Hinge().discriminator(judge(x), judge(jax.lax.stop_gradient(scale * x)))

    by_generator, by_discriminator = jax.jit(jax.grad(losses, argnums=(0, 1)))(0.5, params)
    assert float(by_generator) == 0
    assert any(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(by_discriminator))
