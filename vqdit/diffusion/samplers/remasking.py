"""Remasking: tokens that were revealed can be masked and drawn again (ReMDM, arXiv:2503.00307).

In the step from t to s a token that is revealed is masked with probability r, one that is masked is revealed with

    (1)  (alpha(s) - (1 - r) alpha(t)) / (1 - alpha(t)),   0 <= r <= min(1, (1 - alpha(s)) / alpha(t))

so that a share alpha(s) is revealed at s, whatever r is; r = 0 is `Ancestral`. With s = t tokens are only exchanged.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import GENERATED, clock_of
from vqdit.diffusion.denoiser import Denoiser
from vqdit.diffusion.samplers.grids import check_steps
from vqdit.diffusion.samplers.shared import all_masked, log_probability_of, propose, split_each
from vqdit.diffusion.samplers.stepwise import State, Stepwise
from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout

Amount = Callable[[jax.Array, jax.Array], jax.Array]
"""r as a function of its largest value and of the noise level t."""

Focus = Callable[[jax.Array, jax.Array], jax.Array]
"""How r is shared out: weights [B, N] of mean 1 over the `revealed bool [B, N]` tokens, from the probabilities [B, N]
that they were drawn with."""

Times = Callable[[int], np.ndarray]
"""The noise levels float32 [steps + 1] that so many steps stop at, from 1 to 0."""


def capped(most: float = 0.05) -> Amount:
    """The largest r, but not above `most`."""
    _check_share(most)
    return lambda largest, t: jnp.minimum(largest, most)


def rescaled(share: float = 0.1) -> Amount:
    """A share of the largest r."""
    _check_share(share)
    return lambda largest, t: share * largest


def during(amount: Amount, start: float, stop: float) -> Amount:
    """Another amount from noise level `start` down to `stop`, and none outside."""
    return lambda largest, t: jnp.where((t <= start) & (t >= stop), amount(largest, t), 0.0)


def evenly(probabilities: jax.Array, revealed: jax.Array) -> jax.Array:
    """Every revealed token alike."""
    del probabilities
    return jnp.ones(revealed.shape)


def on_the_unsure(probabilities: jax.Array, revealed: jax.Array) -> jax.Array:
    """In proportion to exp(-p) of the probability p that a token was drawn with (ReMDM-conf).

    The paper's weights sum to 1 over all tokens; these have a mean of 1, so that as many tokens are masked as `evenly`.
    """
    scores = jnp.where(revealed, jnp.exp(-probabilities), 0.0)
    total = jnp.maximum(jnp.sum(scores, axis=1, keepdims=True), 1e-12)
    return scores / total * jnp.sum(revealed, axis=1, keepdims=True)


def straight(steps: int) -> np.ndarray:
    """Equal steps from 1 to 0."""
    return np.float32(1.0) - np.arange(steps + 1, dtype=np.float32) / steps


def looped(level: float = 0.1, share: float = 0.5) -> Times:
    """Equal steps that stay at noise level `level` for a `share` of them (ReMDM-loop), with `during` the amount there.

    Raises UserError unless both lie between 0 and 1, and, when called, for too few steps to come and go.
    """
    if not (0 < level < 1 and 0 < share < 1):
        raise UserError(f'the level and the share of a loop lie between 0 and 1, not {level} and {share}')

    def times(steps: int) -> np.ndarray:
        moving = steps - round(share * steps)
        coming = min(max(round(moving * (1 - level)), 1), moving - 1)
        if coming < 1:
            raise UserError(f'a loop over {share} of {steps} steps leaves {moving} to come and go; take more steps')
        return np.concatenate([np.linspace(1, level, coming + 1), np.full(steps - moving, level),
                               np.linspace(level, 0, moving - coming + 1)[1:]]).astype(np.float32)

    return times


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise UserError(f'the amount of remasking {share} is no probability')


@dataclass(frozen=True)
class Remasking(Stepwise):
    """Equation (1) at the noise levels of `times`, with r shared out by `focus`.

    O(1/steps) as `Ancestral` when the focus is `evenly`; one that looks at the draws is biased. Early mistakes can be
    mended, which helps imperfect models.
    """

    steps: int
    amount: Amount = field(default_factory=capped)
    temperature: float = 1.0
    process: Absorbing = field(default_factory=Absorbing)
    focus: Focus = evenly
    times: Times = straight

    def __post_init__(self):
        check_steps(self.steps)
        self.times(self.steps)

    def length(self, layout: TokenLayout) -> int:
        return self.steps

    def start(self, keys: jax.Array, codes: jax.Array, roles: jax.Array, layout: TokenLayout) -> State:
        """The memory is the probability that every revealed token was drawn with, fp32 [B, N]."""
        return State(all_masked(codes, roles, layout), keys, jnp.ones(codes.shape))

    def step(self, index: jax.Array, state: State, denoiser: Denoiser, roles: jax.Array,
             layout: TokenLayout) -> State:
        noisy, generated, mask_ids = state.codes, roles == GENERATED, jnp.asarray(layout.mask_ids)[None]
        t, s = (jnp.asarray(self.times(self.steps))[index + later] for later in (0, 1))
        keys, draw, move = split_each(state.keys, 3)
        logits = denoiser(noisy, clock_of(roles, t))
        proposal = propose(draw, logits, layout, self.temperature)
        chance = jax.vmap(lambda key: jax.random.uniform(key, roles.shape[1:]))(move)
        remask, reveal = self.probabilities(t, s)
        masked = noisy == mask_ids
        share = remask * self.focus(state.memory, generated & ~masked)
        revealed = generated & masked & (chance < reveal)
        moved = jnp.where(generated & ~masked & (chance < share), mask_ids, noisy)
        drawn_with = jnp.exp(log_probability_of(proposal, logits, layout))
        return State(jnp.where(revealed, proposal, moved), keys, jnp.where(revealed, drawn_with, state.memory))

    def probabilities(self, t: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
        """r and (1)."""
        late, early = self.process.schedule.alpha(t), self.process.schedule.alpha(s)
        largest = jnp.minimum(1.0, (1.0 - early) / jnp.maximum(late, 1e-12))
        remask = jnp.where(late > 0, self.amount(largest, t), 0.0)
        return remask, jnp.clip((early - (1.0 - remask) * late) / jnp.maximum(1.0 - late, 1e-12), 0.0, 1.0)
