"""Samplers that reveal a fixed number of tokens in every step, in an order of their own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import GENERATED, clock_of
from vqdit.diffusion.denoiser import Denoiser
from vqdit.diffusion.samplers.grids import check_steps
from vqdit.diffusion.samplers.shared import all_masked, entropy, highest, log_probability_of, propose, read, split_each
from vqdit.errors import UserError
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


@dataclass(frozen=True)
class Ordered:
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
        known = ('random', 'confidence', *SURENESS)
        if self.order not in known:
            raise UserError(f'order "{self.order}" is unknown; choose one of {", ".join(known)}')

    def __call__(self, keys: jax.Array, denoiser: Denoiser, codes: jax.Array, roles: jax.Array,
                 layout: TokenLayout) -> jax.Array:
        """Samples int32 [B, N]: given tokens as in `codes`, absent ones masked, the others generated."""
        mask_ids = jnp.asarray(layout.mask_ids)
        start, stages = all_masked(codes, roles, layout), jnp.asarray(self.stages(layout))[None]
        hidden = self._hidden(jnp.sum(roles == GENERATED, axis=1))
        first = jax.vmap(lambda key: jax.random.fold_in(key, self.steps))(keys)
        priority = jax.vmap(lambda key: jax.random.uniform(key, roles.shape[1:]))(first)

        def reveal(noisy, index, before, after):
            step_keys = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
            draw, choose = split_each(step_keys, 2)
            clock = clock_of(roles, (before / jnp.maximum(hidden[0], 1))[:, None])
            logits = denoiser(noisy, clock)
            proposal = propose(draw, logits, layout, self.temperature)
            score = priority if self.order == 'random' else self._noisy(
                choose, self._sureness(proposal, logits, layout), 1.0 - index / self.steps)
            masked = (noisy == mask_ids[None]) & (roles == GENERATED)
            # What is not masked comes behind the last stage.
            order = jnp.where(masked, stages, np.iinfo(np.int32).max)
            revealed = highest(score, before - after, order)
            return jnp.where(revealed & masked, proposal, noisy)

        def body(noisy, step):
            _, before, after = step
            # Short texts have fewer tokens than there are steps: a step in which no sample reveals any costs nothing.
            return jax.lax.cond(jnp.any(before > after), reveal, lambda noisy, *_: noisy, noisy, *step), None

        final, _ = jax.lax.scan(body, start, (jnp.arange(self.steps), hidden[:-1], hidden[1:]))
        return final

    def _hidden(self, total: jax.Array) -> jax.Array:
        """How many of the `total [B]` generated tokens are masked before every step and at the end, [steps + 1, B]."""
        times = 1.0 - jnp.arange(self.steps + 1) / self.steps
        return jnp.round((1.0 - self.process.schedule.alpha(times))[:, None] * total[None]).astype(jnp.int32)

    def _sureness(self, proposal: jax.Array, logits: Mapping[str, jax.Array], layout: TokenLayout) -> jax.Array:
        if self.order == 'confidence':
            return log_probability_of(proposal, logits, layout)
        return read(logits, layout, SURENESS[self.order])

    def _noisy(self, keys: jax.Array, confidence: jax.Array, t: jax.Array) -> jax.Array:
        gumbel = jax.vmap(lambda key: jax.random.gumbel(key, confidence.shape[1:], mode='high'))(keys)
        return confidence + self.choice_temperature * t * gumbel
