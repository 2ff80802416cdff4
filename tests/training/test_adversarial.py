"""A tokenizer against a discriminator: one compiled step at several steps of its schedule."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.discriminators import PatchDiscriminator
from vqdit.tokenizers.frozen import LearnedTokenizer
from vqdit.tokenizers.losses.adversarial import Hinge, feature_matching_loss, gradient_penalty
from vqdit.tokenizers.losses.balance import FixedWeights
from vqdit.tokenizers.pixels import Pixels
from vqdit.tokenizers.quantizers import VectorQuantizer
from vqdit.training.adversarial import create_adversarial_state, make_adversarial_step
from vqdit.training.adversary import Adversary
from vqdit.training.checkpoints import Checkpoints
from vqdit.training.objective import tokenizer_loss
from vqdit.training.steps import make_step

TOKENIZER = LearnedTokenizer(Pixels((8, 8), 1), Autoencoder(VectorQuantizer(8, 4), 1, (8,), 1, (4, 4)))
RATE, OPPONENT_RATE = 0.1, 0.01
ADVERSARY = Adversary(PatchDiscriminator(width=4, layers=1), optax.sgd(OPPONENT_RATE), Hinge(), FixedWeights(),
                      weight=0.5, feature_matching=2.0, gradient_penalty=3.0, penalty_every=4, lecam=0.1, start=2,
                      alone=2, ramp=2)
WAITING, ALONE, HALF, FULL = 1, 3, 5, 7
"""Steps before the start, while the discriminator learns alone, within the ramp, and after it; no penalty is due."""
OPTIMIZER, ROOT = optax.sgd(RATE), jax.random.key(3)
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
QUICK = {'xla_backend_optimization_level': 0}
step = jax.jit(make_adversarial_step(TOKENIZER, 'image', ADVERSARY, OPTIMIZER, 0.9), compiler_options=QUICK)
plain = jax.jit(make_step(tokenizer_loss(TOKENIZER, 'image'), OPTIMIZER, 0.9), compiler_options=QUICK)


def _create():
    key = jax.random.key(0)
    return create_adversarial_state(TOKENIZER, ADVERSARY, OPTIMIZER, TOKENIZER.init(key), key)


@functools.cache
def _start():
    """A state whose codebook has started."""
    state = jax.jit(_create, compiler_options=QUICK)()
    return step(state, {'image': PIXELS}, ROOT)[0]


def _at(number):
    return _start().replace(step=jnp.int32(number))


def _equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def _close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), a, b)


def _moved(before, after):
    return any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after)))


@pytest.mark.parametrize('number, learns', [(WAITING, False), (ALONE, True)])
def test_until_it_counts_the_generator_trains_as_without_it(number, learns):
    """Reference case 32: the discriminator is not trained before its start, and trains alone first."""
    before = _at(number)
    after, metrics = step(before, {'image': PIXELS}, ROOT)
    alone, _ = plain(before, {'image': PIXELS}, ROOT)
    _close(after.params, alone.params)
    _close(after.codebook, alone.codebook)
    assert _moved(before.adversary.params, after.adversary.params) == learns
    assert _moved(before.adversary.lecam, after.adversary.lecam) == learns
    assert float(metrics['adversarial_factor']) == 0


@pytest.mark.parametrize('number, presence', [(HALF, 0.5), (FULL, 1.0)])
def test_each_side_follows_the_gradient_of_its_own_loss_alone(number, presence):
    """Reference case 32: gradients isolated, the ramp in between; against gradients of the losses as written."""
    before = _at(number)
    after, metrics = step(before, {'image': PIXELS}, ROOT)
    judge = lambda params, x: ADVERSARY.judge(params, x)
    real = TOKENIZER.front_end.analyse(PIXELS)

    def reconstruct(params):
        variables = {'params': params, 'codebook': before.codebook}
        return TOKENIZER.autoencoder.apply(variables, real, train=True, key=jax.random.fold_in(ROOT, number),
                                           mutable=['codebook'])[0]

    def generator(params):
        result = reconstruct(params)
        fake = judge(before.adversary.params, result.output)
        matching = feature_matching_loss(judge(before.adversary.params, real).features, fake.features)
        return (TOKENIZER.distortion(result.output, real)[0] + result.quantized.loss
                + presence * (0.5 * Hinge().generator(fake.logits) + 2.0 * matching))

    def discriminator(params):
        logits = [judge(params, x).logits[0] for x in (real, reconstruct(before.params).output)]
        lecam = before.adversary.lecam
        penalty = (jnp.mean(jax.nn.relu(logits[0] - lecam.fake) ** 2)
                   + jnp.mean(jax.nn.relu(lecam.real - logits[1]) ** 2))
        return Hinge().discriminator(logits[:1], logits[1:]) + 0.1 * penalty

    descend = lambda params, slopes, rate: jax.tree.map(lambda p, g: p - rate * g, params, slopes)
    value, slopes = jax.jit(jax.value_and_grad(generator), compiler_options=QUICK)(before.params)
    _close(after.params, descend(before.params, slopes, RATE))
    assert float(metrics['loss']) == pytest.approx(float(value), rel=1e-5)
    value, slopes = jax.jit(jax.value_and_grad(discriminator), compiler_options=QUICK)(before.adversary.params)
    _close(after.adversary.params, descend(before.adversary.params, slopes, OPPONENT_RATE))
    assert float(metrics['discriminator']) == pytest.approx(float(value), rel=1e-5)


def test_the_gradient_penalty_comes_every_so_many_steps_and_counts_as_many_times():
    """StyleGAN2's lazy regularisation; the step's key alone differs otherwise, and it changes no loss here."""
    real = TOKENIZER.front_end.analyse(PIXELS)
    penalty = gradient_penalty(lambda x: ADVERSARY.judge(_start().adversary.params, x).logits, real)
    losses = [float(step(_at(number), {'image': PIXELS}, ROOT)[1]['discriminator']) for number in (FULL, 10)]
    assert losses[1] - losses[0] == pytest.approx(4 * 3.0 * float(penalty), rel=1e-4)


def test_a_step_that_is_not_finite_changes_neither_side():
    before = _at(FULL)
    broken = before.replace(params=jax.tree.map(lambda x: x * jnp.nan, before.params))
    after, metrics = step(broken, {'image': PIXELS}, ROOT)
    _equal(after.adversary, broken.adversary)
    _equal(after.codebook, broken.codebook)
    assert int(metrics['skipped']) == 1 and int(after.step) == FULL + 1


class Steep(Hinge):
    """A loss whose value is finite, and whose slope is not: the root of 0 times the logits."""

    def discriminator(self, real, fake):
        return super().discriminator(real, fake) + jnp.sqrt(0.0 * jnp.sum(real[0]))


def test_a_discriminator_whose_gradient_is_not_finite_changes_neither_side():
    adversary = dataclasses.replace(ADVERSARY, game=Steep(), gradient_penalty=0.0)
    steep = make_adversarial_step(TOKENIZER, 'image', adversary, OPTIMIZER, 0.9)
    before = _at(FULL)
    after, metrics = jax.jit(steep, compiler_options=QUICK)(before, {'image': PIXELS}, ROOT)
    assert np.isfinite([float(metrics[name]) for name in ('loss', 'gradient_norm', 'discriminator')]).all()
    assert not np.isfinite(float(metrics['discriminator_gradient_norm'])) and int(metrics['skipped']) == 1
    _equal((after.params, after.adversary), (before.params, before.adversary))


def test_the_adversary_is_part_of_the_checkpoint(tmp_path):
    """Reference cases 26, 33: parameters, optimizer, and the averages of the logits, to the last bit."""
    state = step(_at(FULL), {'image': PIXELS}, ROOT)[0]
    with Checkpoints(str(tmp_path / 'checkpoints'), keep=1) as checkpoints:
        checkpoints.save(8, {'state': state}, wait=True)
        _, trees, _ = checkpoints.restore({'state': jax.eval_shape(lambda: state)})
    assert float(state.adversary.lecam.real) != 0
    _equal(trees['state'], state)
