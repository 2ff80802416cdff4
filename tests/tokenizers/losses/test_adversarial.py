import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.tokenizers.discriminators import (
    BLUR,
    MultiPeriodDiscriminator,
    PatchDiscriminator,
    ResidualDiscriminator,
    _halved,
    _normalised,
    build_discriminator,
)
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

QUICK = {'xla_backend_optimization_level': 0}
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
    (PatchDiscriminator(width=7, layers=2), (2, 12, 16, 3)), (PatchDiscriminator(width=4, layers=1), (2, 32, 1)),
    (ResidualDiscriminator(width=4, layers=2), (2, 9, 12, 3)), (ResidualDiscriminator(width=4, layers=1), (2, 32, 1)),
    (MultiPeriodDiscriminator(periods=(2, 3), width=2), (2, 101, 1)),
    (build_discriminator([{'name': 'spectral', 'windows': (32, 16), 'width': 2}, {'name': 'patch', 'width': 4}]),
     (2, 100, 1))])
def test_discriminators_judge_every_item_alone_and_reach_the_data(discriminator, shape):
    """Reference cases 32, 38: gradients of both games reach their own side, and no other item of the batch."""
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    params = jax.jit(discriminator.init, compiler_options=QUICK)(jax.random.key(0), x)
    judge = lambda x: discriminator.apply(params, x).logits
    first = lambda x: jnp.sum(jnp.stack([jnp.sum(logit[0]) for logit in judge(x)]))
    slope = np.asarray(jax.jit(jax.grad(first), compiler_options=QUICK)(x))
    assert np.abs(slope[0]).max() > 0 and np.abs(slope[1]).max() == 0
    judgement = jax.eval_shape(discriminator.apply, params, x)
    assert judgement.features and all(logit.shape[0] == 2 for logit in judgement.logits)


def test_neither_side_trains_the_other():
    """Reference case 32: the discriminator's loss after `stop_gradient` leaves the generator alone."""
    discriminator = PatchDiscriminator(width=4, layers=1)
    x = np.ones((1, 8, 8, 1), np.float32)
    params = jax.jit(discriminator.init, compiler_options=QUICK)(jax.random.key(0), x)

    def losses(scale, params):
        judge = lambda x: discriminator.apply(params, x).logits
        return Hinge().discriminator(judge(x), judge(jax.lax.stop_gradient(scale * x)))

    by_generator, by_discriminator = jax.jit(jax.grad(losses, argnums=(0, 1)), compiler_options=QUICK)(0.5, params)
    assert float(by_generator) == 0
    assert any(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(by_discriminator))


def test_halving_blurs_first_and_keeps_what_is_constant():
    """The binomial filter of StyleGAN2: an alternation, which plain strides would alias to a constant, is gone."""
    np.testing.assert_allclose(_halved(jnp.full((1, 5, 6, 2), 3.0)), np.full((1, 3, 3, 2), 3.0), rtol=1e-6)
    wave = jnp.asarray([1.0, -1.0] * 4).reshape(1, 8, 1)
    np.testing.assert_allclose(_halved(wave)[0, 1:-1, 0], 0, atol=1e-6)
    impulse = jnp.zeros((1, 8, 1)).at[0, 4].set(1.0)
    np.testing.assert_allclose(_halved(impulse)[0, :, 0], [0, BLUR[3], BLUR[1], 0])


@pytest.mark.parametrize('members, message', [
    ([], 'is empty'), ([{'name': 'pach'}], 'discriminators.0.name "pach" is unknown.*Did you mean "patch"'),
    ([{'name': 'patch'}, {'name': 'patch', 'depth': 2}], 'discriminators.1: .*depth')])
def test_misspelt_discriminators_are_refused(members, message):
    with pytest.raises(UserError, match=message):
        build_discriminator(members)


@pytest.mark.parametrize('channels', [14, 32])
def test_normalisation_is_exact_far_from_zero(channels):
    """Reference case 41: Flax's fast variance is off by 0.57 at a mean of 1000; 14 channels have no 3 equal groups."""
    x = np.random.default_rng(0).normal(size=(2, 6, 6, channels)).astype(np.float32) + np.float32(1000)

    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, x):
            return _normalised(x)

    groups = {14: 1, 32: 8}[channels]
    parts = x.astype(np.float64).reshape(2, 36, groups, -1)
    expected = (parts - parts.mean((1, 3), keepdims=True)) / parts.std((1, 3), keepdims=True)
    found = Normalised().apply(Normalised().init(jax.random.key(0), x), x)
    np.testing.assert_allclose(found, expected.reshape(x.shape), atol=2e-3)
