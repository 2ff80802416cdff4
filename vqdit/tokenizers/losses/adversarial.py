"""Losses between a tokenizer and a discriminator that tells its reconstructions from data.

A discriminator gives logits, high for real, of any shapes; several of them are a sequence. Those of reconstructions
reach the generator's loss through the reconstruction, and the discriminator's after `jax.lax.stop_gradient` of it, so
that neither trains the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

Logits = Sequence[jax.Array]


class Game(Protocol):
    """What each side minimises, fp32 scalars averaged over the discriminators."""

    def discriminator(self, real: Logits, fake: Logits) -> jax.Array: ...

    def generator(self, fake: Logits) -> jax.Array: ...


@dataclass(frozen=True)
class Hinge:
    """max(0, 1 - real) + max(0, 1 + fake), halved, against -fake (Lim and Ye 2017, arXiv:1705.02894)."""

    def discriminator(self, real: Logits, fake: Logits) -> jax.Array:
        return (_average(lambda x: jax.nn.relu(1 - x), real) + _average(lambda x: jax.nn.relu(1 + x), fake)) / 2

    def generator(self, fake: Logits) -> jax.Array:
        return _average(lambda x: -x, fake)


@dataclass(frozen=True)
class NonSaturating:
    """-log sigmoid(real) - log(1 - sigmoid(fake)) against -log sigmoid(fake) (Goodfellow et al. 2014)."""

    def discriminator(self, real: Logits, fake: Logits) -> jax.Array:
        return _average(lambda x: jax.nn.softplus(-x), real) + _average(jax.nn.softplus, fake)

    def generator(self, fake: Logits) -> jax.Array:
        return _average(lambda x: jax.nn.softplus(-x), fake)


@dataclass(frozen=True)
class LeastSquares:
    """(real - 1)^2 + fake^2 against (fake - 1)^2 (Mao et al. 2016, arXiv:1611.04076)."""

    def discriminator(self, real: Logits, fake: Logits) -> jax.Array:
        return _average(lambda x: (x - 1) ** 2, real) + _average(lambda x: x**2, fake)

    def generator(self, fake: Logits) -> jax.Array:
        return _average(lambda x: (x - 1) ** 2, fake)


GAMES: dict[str, Callable[[], Game]] = {
    'hinge': Hinge, 'non_saturating': NonSaturating, 'least_squares': LeastSquares}


def gradient_penalty(discriminate: Callable[[jax.Array], Logits], real: jax.Array) -> jax.Array:
    """R1: mean over items of |d logit / d real|^2, a logit being the mean of an item's (Mescheder et al. 2018,
    arXiv:1801.04406, eq. 9, less its factor of a half)."""
    def score(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.stack([jnp.sum(jnp.mean(logit.reshape(len(x), -1), axis=1)) for logit in discriminate(x)]))

    slopes = jax.grad(score)(real.astype(jnp.float32))
    return jnp.mean(jnp.sum(slopes.reshape(len(real), -1) ** 2, axis=1))


class LecamState(NamedTuple):
    """Moving averages of the mean logits of real and reconstructed data; part of the training state."""

    real: jax.Array
    fake: jax.Array


def lecam_start() -> LecamState:
    return LecamState(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))


def lecam_penalty(state: LecamState, real: Logits, fake: Logits,
                  decay: float = 0.999) -> tuple[jax.Array, LecamState]:
    """Draws the logits of each side back towards the average of the other (Tseng et al. 2021, arXiv:2104.03310, eq. 6).

    Also returns the averages after this batch.
    """
    penalty = (_average(lambda x: jax.nn.relu(x - state.fake) ** 2, real)
               + _average(lambda x: jax.nn.relu(state.real - x) ** 2, fake))
    still = jax.lax.stop_gradient
    means = LecamState(_average(still, real), _average(still, fake))
    return penalty, jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state, means)


def adaptive_weight(reconstruction: Any, adversarial: Any, most: float = 1e4) -> jax.Array:
    """|reconstruction| / (|adversarial| + 1e-4) of two gradients by the decoder's last layer, at most `most`.

    It makes the discriminator's pull on the decoder as strong as that of the data (VQGAN, arXiv:2012.09841, eq. 7).
    """
    ratio = optax.tree.norm(reconstruction) / (optax.tree.norm(adversarial) + 1e-4)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, most))


def feature_matching_loss(real: Sequence[jax.Array], fake: Sequence[jax.Array]) -> jax.Array:
    """Mean absolute error of the discriminator's features, averaged over layers (Kumar et al. 2019, MelGAN,
    arXiv:1910.06711, eq. 4); the real ones are targets."""
    errors = [jnp.mean(jnp.abs(b - jax.lax.stop_gradient(a))) for a, b in zip(real, fake, strict=True)]
    return jnp.mean(jnp.stack(errors))


def ramp(step: jax.Array, start: int, length: int) -> jax.Array:
    """0 until `start`, then rising to 1 within `length` steps: when a discriminator counts for the generator."""
    return jnp.clip((step - start) / max(length, 1), 0.0, 1.0)


def _average(function: Callable[[jax.Array], jax.Array], logits: Logits) -> jax.Array:
    return jnp.mean(jnp.stack([jnp.mean(function(x.astype(jnp.float32))) for x in logits]))
