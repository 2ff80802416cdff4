"""Remasking: tokens that were revealed can be masked and drawn again (ReMDM, arXiv:2503.00307).

In the step from t to s a token that is revealed is masked with probability r, one that is masked is revealed with

    (1)  (alpha(s) - (1 - r) alpha(t)) / (1 - alpha(t)),   0 <= r <= (1 - alpha(s)) / alpha(t)

so that a share alpha(s) is revealed at s, whatever r is; r = 0 is `Ancestral`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import GENERATED, clock_of
from vqdit.diffusion.denoiser import Denoiser
from vqdit.diffusion.samplers.grids import check_steps
from vqdit.diffusion.samplers.shared import all_masked, propose, split_each
from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout

Amount = Callable[[jax.Array, jax.Array], jax.Array]
"""r as a function of its largest value and of the noise level t."""


def capped(most: float) -> Amount:
    """The largest r, but not above `most`."""
    _check_share(most)
    return lambda largest, t: jnp.minimum(largest, most)


def rescaled(share: float) -> Amount:
    """A share of the largest r."""
    _check_share(share)
    return lambda largest, t: share * largest


def during(amount: Amount, start: float, stop: float) -> Amount:
    """Another amount from noise level `start` down to `stop`, and none outside."""
    return lambda largest, t: jnp.where((t <= start) & (t >= stop), amount(largest, t), 0.0)


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise UserError(f'the amount of remasking {share} is no probability')


@dataclass(frozen=True)
class Remasking:
    """Equation (1): as `Ancestral` O(1/steps), but early mistakes can be mended, which helps imperfect models."""

    steps: int
    amount: Amount = field(default_factory=lambda: capped(0.05))
    temperature: float = 1.0
    process: Absorbing = field(default_factory=Absorbing)

    def __post_init__(self):
        check_steps(self.steps)

    def __call__(self, keys: jax.Array, denoiser: Denoiser, codes: jax.Array, roles: jax.Array,
                 layout: TokenLayout) -> jax.Array:
        """Samples int32 [B, N]: given tokens as in `codes`, absent ones masked, the others generated."""
        mask_ids, generated = jnp.asarray(layout.mask_ids)[None], roles == GENERATED
        start = all_masked(codes, roles, layout)

        def body(state, index):
            noisy, keys = state
            t, s = 1.0 - index / self.steps, 1.0 - (index + 1) / self.steps
            keys, draw, move = split_each(keys, 3)
            proposal = propose(draw, denoiser(noisy, clock_of(roles, t)), layout, self.temperature)
            chance = jax.vmap(lambda key: jax.random.uniform(key, roles.shape[1:]))(move)
            remask, reveal = self.probabilities(t, s)
            moved = jnp.where(noisy == mask_ids, jnp.where(chance < reveal, proposal, noisy),
                              jnp.where(chance < remask, mask_ids, noisy))
            return (jnp.where(generated, moved, noisy), keys), None

        (final, _), _ = jax.lax.scan(body, (start, keys), jnp.arange(self.steps, dtype=jnp.float32))
        return final

    def probabilities(self, t: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
        """r and (1)."""
        late, early = self.process.schedule.alpha(t), self.process.schedule.alpha(s)
        largest = jnp.minimum(1.0, (1.0 - early) / jnp.maximum(late, 1e-12))
        remask = jnp.where(late > 0, self.amount(largest, t), 0.0)
        return remask, jnp.clip((early - (1.0 - remask) * late) / jnp.maximum(1.0 - late, 1e-12), 0.0, 1.0)
