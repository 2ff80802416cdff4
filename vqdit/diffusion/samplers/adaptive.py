"""Samplers that choose themselves how much to reveal at once, or when."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import GENERATED, clock_of
from vqdit.diffusion.denoiser import Denoiser
from vqdit.diffusion.samplers.shared import all_masked, entropy, highest, propose, read, split_each
from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout


@dataclass(frozen=True)
class FirstHitting:
    """Reveals one token at a time, at the noise level at which the process would (arXiv:2409.02908): exact.

    With n tokens masked at the masked share m the next is revealed at m u^(1/n), u uniform. One step a token.
    """

    temperature: float = 1.0
    process: Absorbing = field(default_factory=Absorbing)

    def __call__(self, keys: jax.Array, denoiser: Denoiser, codes: jax.Array, roles: jax.Array,
                 layout: TokenLayout) -> jax.Array:
        """Samples int32 [B, N]: given tokens as in `codes`, absent ones masked, the others generated."""
        mask_ids, generated = jnp.asarray(layout.mask_ids)[None], roles == GENERATED

        def reveal(noisy, share, keys):
            keys, draw, choose, wait = split_each(keys, 4)
            masked = (noisy == mask_ids) & generated
            left = jnp.maximum(jnp.sum(masked, axis=1), 1)
            share = share * jax.vmap(jax.random.uniform)(wait) ** (1.0 / left)
            clock = clock_of(roles, self._level(share)[:, None])
            proposal = propose(draw, denoiser(noisy, clock), layout, self.temperature)
            score = jax.vmap(lambda key: jax.random.uniform(key, roles.shape[1:]))(choose)
            chosen = highest(jnp.where(masked, score, -jnp.inf), jnp.ones_like(left)) & masked
            return jnp.where(chosen, proposal, noisy), share, keys

        def body(state, _):
            noisy, *_ = state
            go = jnp.any((noisy == mask_ids) & generated)
            return jax.lax.cond(go, reveal, lambda *same: same, *state), None

        state = (all_masked(codes, roles, layout), jnp.ones(codes.shape[0]), keys)
        (final, *_), _ = jax.lax.scan(body, state, length=codes.shape[1])
        return final

    def _level(self, share: jax.Array) -> jax.Array:
        """The noise levels at which the masked share is `share`, by bisection."""
        low, high = jnp.zeros_like(share), jnp.ones_like(share)
        for _ in range(24):
            middle = 0.5 * (low + high)
            below = 1.0 - self.process.schedule.alpha(middle) < share
            low, high = jnp.where(below, middle, low), jnp.where(below, high, middle)
        return high


@dataclass(frozen=True)
class EntropyBounded:
    """Reveals the surest tokens first, and as many at once as `bound` nats of dependence allow (arXiv:2505.24857).

    Of the tokens in order of their entropy, those are taken whose entropies without the largest sum to `bound` at
    most: this bounds how much the tokens that are drawn together can depend on each other. A bound of 0 reveals a
    token at a time and those that are certain, which is exact. Takes at most a step a token; raises UserError for a
    negative bound.
    """

    bound: float = 0.1
    temperature: float = 1.0

    def __post_init__(self):
        if self.bound < 0:
            raise UserError(f'the entropy bound {self.bound} must not be negative')

    def __call__(self, keys: jax.Array, denoiser: Denoiser, codes: jax.Array, roles: jax.Array,
                 layout: TokenLayout) -> jax.Array:
        """Samples int32 [B, N]: given tokens as in `codes`, absent ones masked, the others generated."""
        mask_ids, generated = jnp.asarray(layout.mask_ids)[None], roles == GENERATED
        total = jnp.maximum(jnp.sum(generated, axis=1, keepdims=True), 1)

        def reveal(noisy, keys):
            keys, draw = split_each(keys, 2)
            masked = (noisy == mask_ids) & generated
            logits = denoiser(noisy, clock_of(roles, jnp.sum(masked, axis=1, keepdims=True) / total))
            uncertain = jnp.where(masked, read(logits, layout, entropy), jnp.inf)
            inside = jnp.cumsum(jnp.sort(uncertain, axis=1), axis=1)
            # The sum without the largest is the sum up to the token before.
            before = jnp.concatenate([jnp.zeros_like(inside[:, :1]), inside[:, :-1]], axis=1)
            chosen = highest(-uncertain, jnp.sum(before <= self.bound, axis=1)) & masked
            return jnp.where(chosen, propose(draw, logits, layout, self.temperature), noisy), keys

        def body(state, _):
            go = jnp.any((state[0] == mask_ids) & generated)
            return jax.lax.cond(go, reveal, lambda *same: same, *state), None

        (final, _), _ = jax.lax.scan(body, (all_masked(codes, roles, layout), keys), length=codes.shape[1])
        return final
