"""The training step of a tokenizer with a discriminator: two optimizers, one pass through the autoencoder.

Each side sees the other as it was before the step. The losses of the generator meet at the autoencoder's output: their
gradients by it are balanced there and pulled back through the network once, so that none of them reaches the
discriminator; the discriminator is given the output alone.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vqdit.tokenizers.frozen import LearnedTokenizer
from vqdit.tokenizers.losses.adversarial import (
    LecamState,
    feature_matching_loss,
    gradient_penalty,
    lecam_penalty,
    lecam_start,
)
from vqdit.training.adversary import LOSSES, Adversary
from vqdit.training.ema import update_average
from vqdit.training.passes import Pass, whole
from vqdit.training.state import TrainState, Tree, create_state
from vqdit.training.steps import Metrics, keep_if

GUARDED = ('loss', 'gradient_norm', 'discriminator', 'discriminator_gradient_norm')
"""The metrics that must be finite, else a step changes nothing."""


@flax.struct.dataclass
class AdversaryState:
    """What a step changes of the adversary: its parameters, their optimizer, averages of logits and of gradients."""

    params: Tree
    opt_state: Tree
    lecam: LecamState
    balance: Tree


@flax.struct.dataclass
class AdversarialState(TrainState):
    """The state of a tokenizer's training with that of its adversary."""

    adversary: AdversaryState


def create_adversarial_state(tokenizer: LearnedTokenizer, adversary: Adversary,
                             optimizer: optax.GradientTransformation, variables: Tree,
                             key: jax.Array) -> AdversarialState:
    """The state before the first step of a tokenizer with `variables`; `key` draws the discriminator's parameters."""
    generator = create_state(variables, optimizer)
    x = jnp.zeros((1, *tokenizer.front_end.size, tokenizer.front_end.channels))
    params = adversary.discriminator.init(jax.random.fold_in(key, 1), x)['params']
    state = AdversaryState(params, adversary.optimizer.init(params), lecam_start(), adversary.balance.start(LOSSES))
    return AdversarialState(**vars(generator), adversary=state)


def make_adversarial_step(tokenizer: LearnedTokenizer, modality: str, adversary: Adversary,
                          optimizer: optax.GradientTransformation, ema_decay: float, forward: Pass = whole,
                          ) -> Callable[[AdversarialState, Any, jax.Array], tuple[AdversarialState, Metrics]]:
    """The pure function `(state, batch, root key) -> (state, metrics)`; see `steps.make_step` for the guard."""

    def step(state: AdversarialState, batch: Any, root: jax.Array) -> tuple[AdversarialState, Metrics]:
        x = tokenizer.front_end.analyse(batch[modality])
        key = jax.random.fold_in(root, state.step)

        (output, bottleneck), pull, (codebook, metrics) = jax.vjp(
            lambda params: forward(tokenizer, params, state.codebook, x, key), state.params, has_aux=True)
        value, slope, balance, figures = _pull_of_losses(tokenizer, adversary, state, output, x)
        grads, = pull((slope, jnp.ones_like(bottleneck)))
        opponent, opposing = _train_discriminator(adversary, state, output, x)
        norm = optax.tree.norm(grads)
        figures |= opposing | {'loss': value + bottleneck, 'gradient_norm': norm}
        finite = jnp.isfinite(jnp.stack([figures[name] for name in GUARDED])).all()
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = AdversarialState(
            step=state.step + 1, params=params, opt_state=opt_state, codebook=codebook,
            ema=update_average(state.ema, params, ema_decay, state.step), skipped=jnp.zeros_like(state.skipped),
            averages=state.averages,
            adversary=AdversaryState(**vars(opponent) | {'balance': balance}))
        old = AdversarialState(**vars(state) | {'step': state.step + 1, 'skipped': state.skipped + 1})
        state = keep_if(finite, new, old)
        return state, metrics | figures | {'skipped': state.skipped}

    return step


def _pull_of_losses(tokenizer: LearnedTokenizer, adversary: Adversary, state: AdversarialState, output: jax.Array,
                    x: jax.Array) -> tuple[jax.Array, jax.Array, Tree, Metrics]:
    """The weighted loss of the output, its balanced gradient by the output, the balance's state, and figures."""
    real = adversary.judge(state.adversary.params, x).features if adversary.feature_matching else ()

    def losses(output: jax.Array) -> tuple[dict[str, jax.Array], Metrics]:
        distortion, metrics = tokenizer.distortion(output, x)
        fake = adversary.judge(state.adversary.params, output)
        matching = feature_matching_loss(real, fake.features) if adversary.feature_matching else jnp.zeros(())
        return dict(zip(LOSSES, (distortion, adversary.game.generator(fake.logits), matching))), metrics

    values, pull, metrics = jax.vjp(losses, output, has_aux=True)
    only = lambda chosen: {name: jnp.asarray(name == chosen, value.dtype) for name, value in values.items()}
    slopes = {name: pull(only(name))[0] for name in LOSSES}
    weights = adversary.weights(state.step)
    factors, balance = adversary.balance(slopes, weights, state.adversary.balance)
    weigh = lambda parts: jnp.sum(jnp.stack([factors[name] * parts[name] for name in LOSSES]), axis=0)
    figures = {'adversarial': values['adversarial'], 'adversarial_factor': factors['adversarial']}
    return weigh(values), weigh(slopes), balance, metrics | figures


def _train_discriminator(adversary: Adversary, state: AdversarialState, output: jax.Array,
                         x: jax.Array) -> tuple[AdversaryState, Metrics]:
    """The adversary after its own step, from its start on, its loss and the norm of its gradient."""
    old, fake_data = state.adversary, jax.lax.stop_gradient(output)

    def loss(params: Tree) -> tuple[jax.Array, LecamState]:
        real, fake = (adversary.judge(params, data).logits for data in (x, fake_data))
        value, lecam = adversary.game.discriminator(real, fake), old.lecam
        if adversary.lecam:
            penalty, lecam = lecam_penalty(old.lecam, real, fake)
            value = value + adversary.lecam * penalty
        if adversary.gradient_penalty:
            value = value + adversary.gradient_penalty * _lazy_penalty(adversary, params, x, state.step)
        return value, lecam

    (value, lecam), grads = jax.value_and_grad(loss, has_aux=True)(old.params)
    updates, opt_state = adversary.optimizer.update(grads, old.opt_state, old.params)
    new = AdversaryState(optax.apply_updates(old.params, updates), opt_state, lecam, old.balance)
    figures = {'discriminator': value, 'discriminator_gradient_norm': optax.tree.norm(grads)}
    return keep_if(state.step >= adversary.start, new, old), figures


def _lazy_penalty(adversary: Adversary, params: Tree, x: jax.Array, step: jax.Array) -> jax.Array:
    """R1 every so many steps (StyleGAN2, Karras et al. 2019, arXiv:1912.04958, appendix B), as strong on average."""
    penalty = lambda: gradient_penalty(lambda data: adversary.judge(params, data).logits, x)
    due = (step - adversary.start) % adversary.penalty_every == 0
    return adversary.penalty_every * jax.lax.cond(due, penalty, lambda: jnp.zeros(()))
