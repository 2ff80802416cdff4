"""Samplers that reveal a fixed number of tokens in every step, in an order of their own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import GENERATED, clock_of
from vqdit.diffusion.denoiser import Denoiser
from vqdit.diffusion.samplers.grids import check_steps
from vqdit.diffusion.samplers.shared import (
    all_masked,
    entropy,
    highest,
    log_probability_of,
    per_token,
    propose,
    split_each,
)
from vqdit.diffusion.samplers.stepwise import State, Stepwise
from vqdit.diffusion.schedules import noise_level
from vqdit.errors import UserError, nearest
from vqdit.tokenizers.spec import TokenLayout

Stages = Callable[[TokenLayout], np.ndarray]
"""The stage int32 [N] of every token: those of a lower one are all revealed first."""


def blocks(size: int) -> Stages:
    """Blocks of `size` positions along the first axis of every modality, one after the other (semi-autoregressive)."""
    if size < 1:
        raise UserError(f'a block needs at least 1 position, not {size}')
    return lambda layout: np.concatenate([
        np.repeat(np.arange(spec.grid[0]) // size, spec.length // spec.grid[0]) for spec in layout.specs.values()])


def levels(layout: TokenLayout) -> np.ndarray:
    """The levels of residual quantizers, coarse ones first."""
    return np.concatenate([spec.positions()[:, 3] for spec in layout.specs.values()])


def all_at_once(layout: TokenLayout) -> np.ndarray:
    """One stage."""
    return np.zeros(layout.length, np.int32)


def _margin(log_probabilities: jax.Array) -> jax.Array:
    best = jnp.exp(jax.lax.top_k(log_probabilities, 2)[0])
    return best[..., 0] - best[..., 1]


SURENESS: dict[str, Callable[[jax.Array], jax.Array]] = {
    'margin': _margin,
    'entropy': lambda log_probabilities: -entropy(log_probabilities),
    'purity': lambda log_probabilities: jnp.max(log_probabilities, axis=-1),
}
"""Scores [...] of log-probabilities [..., K] that do not look at what is drawn."""

ORDERS = ('random', *SURENESS, 'confidence')


class Plan(NamedTuple):
    """How many tokens are masked before every step and at the end, int32 [steps + 1, B], and a random order [B, N]."""

    hidden: jax.Array
    priority: jax.Array


@dataclass(frozen=True)
class Ordered(Stepwise):
    """Reveals as many tokens in every step as the schedule asks for.

    `order` is
        "random": exact when `steps` is at least the number of generated tokens (one token at a time is the chain rule
            in a random order), else O(1/steps);
        "entropy", "margin", "purity": the surest tokens first, by the entropy, by the lead of the likeliest code, or
            by its probability. Exact one at a time too, since the order does not look at what is drawn;
        "confidence": the tokens drawn with the highest probability first, as in MaskGIT (arXiv:2202.04200). Sharper,
            but biased towards likely samples even with a perfect model.
    `choice_temperature` adds Gumbel noise, fading out over the steps, to all scores but random ones; `stages` divides
    the tokens (`blocks`, `levels`).
    """

    steps: int
    temperature: float = 1.0
    order: str = 'random'
    choice_temperature: float = 0.0
    process: Absorbing = field(default_factory=Absorbing)
    stages: Stages = all_at_once

    def __post_init__(self):
        check_steps(self.steps)
        if self.order not in ORDERS:
            raise UserError(f'order "{self.order}" is unknown; choose one of {", ".join(ORDERS)}'
                            f'.{nearest(self.order, ORDERS)}')

    def length(self, layout: TokenLayout) -> int:
        return self.steps

    def start(self, keys: jax.Array, codes: jax.Array, roles: jax.Array, layout: TokenLayout) -> State:
        first = jax.vmap(lambda key: jax.random.fold_in(key, self.steps))(keys)
        priority = jax.vmap(lambda key: jax.random.uniform(key, roles.shape[1:]))(first)
        plan = Plan(self._hidden(jnp.sum(roles == GENERATED, axis=1)), priority)
        return State(all_masked(codes, roles, layout), keys, plan)

    def step(self, index: jax.Array, state: State, denoiser: Denoiser, roles: jax.Array,
             layout: TokenLayout) -> State:
        before, after = state.memory.hidden[index], state.memory.hidden[index + 1]
        reveal = lambda codes: self._reveal(index, state._replace(codes=codes), before - after, denoiser, roles, layout)
        # Short texts have fewer tokens than there are steps: a step in which no sample reveals any costs nothing.
        codes = jax.lax.cond(jnp.any(before > after), reveal, lambda codes: codes, state.codes)
        return state._replace(codes=codes)

    def _reveal(self, index: jax.Array, state: State, count: jax.Array, denoiser: Denoiser, roles: jax.Array,
                layout: TokenLayout) -> jax.Array:
        noisy, (hidden, priority) = state.codes, state.memory
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, index))(state.keys)
        draw, choose = split_each(step_keys, 2)
        level = noise_level(self.process.schedule, hidden[index] / jnp.maximum(hidden[0], 1))
        logits = denoiser(noisy, clock_of(roles, level[:, None]))
        proposal = propose(draw, logits, layout, self.temperature)
        score = priority if self.order == 'random' else self._noisy(
            choose, self._sureness(proposal, logits, layout), 1.0 - index / self.steps)
        masked = (noisy == jnp.asarray(layout.mask_ids)[None]) & (roles == GENERATED)
        # What is not masked comes behind the last stage.
        order = jnp.where(masked, jnp.asarray(self.stages(layout))[None], np.iinfo(np.int32).max)
        return jnp.where(highest(score, count, order) & masked, proposal, noisy)

    def _hidden(self, total: jax.Array) -> jax.Array:
        times = 1.0 - jnp.arange(self.steps + 1) / self.steps
        return jnp.round((1.0 - self.process.schedule.alpha(times))[:, None] * total[None]).astype(jnp.int32)

    def _sureness(self, proposal: jax.Array, logits: Mapping[str, jax.Array], layout: TokenLayout) -> jax.Array:
        if self.order == 'confidence':
            return log_probability_of(proposal, logits, layout)
        return per_token(logits, layout, SURENESS[self.order])

    def _noisy(self, keys: jax.Array, confidence: jax.Array, t: jax.Array) -> jax.Array:
        gumbel = jax.vmap(lambda key: jax.random.gumbel(key, confidence.shape[1:], mode='high'))(keys)
        return confidence + self.choice_temperature * t * gumbel
