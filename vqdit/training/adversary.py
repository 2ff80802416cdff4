"""What a tokenizer may train against: a discriminator, the game, and when it counts."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vqdit.errors import UserError
from vqdit.registry import choose
from vqdit.tokenizers.discriminators import Judgement, build_discriminator
from vqdit.tokenizers.losses.adversarial import GAMES, Game, ramp
from vqdit.tokenizers.losses.balance import BALANCES, Balance
from vqdit.training.optimizers import build_optimizer
from vqdit.training.state import Tree

LOSSES = ('reconstruction', 'adversarial', 'feature_matching')


@dataclass(frozen=True)
class Adversary:
    """A discriminator and what it means for the generator.

    Attributes:
        discriminator: of the autoencoder's data [B, *size, C].
        optimizer: its own.
        weight: of the generator's loss in the game, before the balance.
        feature_matching: weight of the error of the discriminator's features.
        gradient_penalty: weight of R1, which is taken every `penalty_every` steps and counts as many times then.
        lecam: weight of the penalty that draws the logits towards the averages of the other side.
        start: the step from which on the discriminator learns.
        alone: steps after `start` in which it learns without counting for the generator.
        ramp: steps after these in which its weight rises to the full one.
    """

    discriminator: nn.Module
    optimizer: optax.GradientTransformation
    game: Game
    balance: Balance
    weight: float = 0.1
    feature_matching: float = 0.0
    gradient_penalty: float = 0.0
    penalty_every: int = 16
    lecam: float = 0.0
    start: int = 0
    alone: int = 0
    ramp: int = 0

    def __post_init__(self) -> None:
        if self.penalty_every < 1 or min(self.start, self.alone, self.ramp) < 0:
            raise UserError(f'penalty_every {self.penalty_every} must be positive, and start {self.start}, alone '
                            f'{self.alone} and ramp {self.ramp} must not be negative')

    def judge(self, params: Tree, x: jax.Array) -> Judgement:
        """The discriminator's view of data."""
        judgement: Any = self.discriminator.apply({'params': params}, x)
        return judgement

    def weights(self, step: jax.Array) -> dict[str, jax.Array]:
        """Of `LOSSES` at a step, a pure function of it."""
        presence = ramp(step, self.start + self.alone, self.ramp)
        shares = jnp.ones(()), self.weight * presence, self.feature_matching * presence
        return dict(zip(LOSSES, shares))


def build_adversary(config: ConfigDict, modality: str) -> Adversary | None:
    """The adversary of `config.tokenizers.<modality>`, if it has one. Raises UserError for a setting that cannot be."""
    section, path = config.tokenizers[modality], f'tokenizers.{modality}.adversary'
    if not section.get('adversary'):
        return None
    if section.training.accumulate > 1:
        raise UserError(f'tokenizers.{modality}.training.accumulate is {section.training.accumulate}; '
                        'with an adversary it must be 1')
    options = section.adversary.to_dict()
    del options['training']
    return Adversary(
        discriminator=build_discriminator(options.pop('discriminators'), f'{path}.discriminators'),
        optimizer=build_optimizer(section.adversary.training, section.training.steps),
        game=choose(GAMES, options.pop('game'), f'{path}.game')(),
        balance=choose(BALANCES, options.pop('balance'), f'{path}.balance')(), **options)
