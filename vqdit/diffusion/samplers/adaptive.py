"""Samplers that choose themselves how much to reveal at once, or when."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import GENERATED, clock_of
from vqdit.diffusion.denoiser import Denoiser
from vqdit.diffusion.samplers.shared import all_masked, entropy, highest, per_token, propose, split_each
from vqdit.diffusion.samplers.stepwise import State, Stepwise
from vqdit.diffusion.schedules import noise_level
from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout


@dataclass(frozen=True)
class _UntilRevealed(Stepwise):
    """Steps until no generated token is masked, at most one a token; what is left over of them costs nothing."""

    def length(self, layout: TokenLayout) -> int:
        return layout.length

    def step(self, index: jax.Array, state: State, denoiser: Denoiser, roles: jax.Array,
             layout: TokenLayout) -> State:
        del index
        masked = (state.codes == jnp.asarray(layout.mask_ids)[None]) & (roles == GENERATED)
        reveal = lambda state: self._reveal(state, masked, denoiser, roles, layout)
        return jax.lax.cond(jnp.any(masked), reveal, lambda state: state, state)

    def _reveal(self, state: State, masked: jax.Array, denoiser: Denoiser, roles: jax.Array,
                layout: TokenLayout) -> State:
        """The state with some of the `masked [B, N]` tokens revealed; every subclass says which."""
        raise NotImplementedError


@dataclass(frozen=True)
class FirstHitting(_UntilRevealed):
    """Reveals one token at a time, at the noise level at which the process would (arXiv:2409.02908): exact.

    With n tokens masked at the masked share m the next is revealed at m u^(1/n), u uniform. One step a token.
    """

    temperature: float = 1.0
    process: Absorbing = field(default_factory=Absorbing)

    def start(self, keys: jax.Array, codes: jax.Array, roles: jax.Array, layout: TokenLayout) -> State:
        """The memory is the masked share m, fp32 [B]."""
        return State(all_masked(codes, roles, layout), keys, jnp.ones(codes.shape[0]))

    def _reveal(self, state: State, masked: jax.Array, denoiser: Denoiser, roles: jax.Array,
                layout: TokenLayout) -> State:
        keys, draw, choose, wait = split_each(state.keys, 4)
        left = jnp.maximum(jnp.sum(masked, axis=1), 1)
        share = state.memory * jax.vmap(jax.random.uniform)(wait) ** (1.0 / left)
        clock = clock_of(roles, noise_level(self.process.schedule, share)[:, None])
        proposal = propose(draw, denoiser(state.codes, clock), layout, self.temperature)
        score = jax.vmap(lambda key: jax.random.uniform(key, roles.shape[1:]))(choose)
        chosen = highest(jnp.where(masked, score, -jnp.inf), jnp.ones_like(left)) & masked
        return State(jnp.where(chosen, proposal, state.codes), keys, share)


@dataclass(frozen=True)
class EntropyBounded(_UntilRevealed):
    """Reveals the surest tokens first, and as many at once as `bound` nats of dependence allow (arXiv:2505.24857).

    Of the tokens in order of their entropy, those are taken whose entropies without the largest sum to `bound` at
    most: this bounds how much the tokens that are drawn together can depend on each other. A bound of 0 reveals a
    token at a time and those that are certain, which is exact. Takes at most a step a token; raises UserError for a
    negative bound.
    """

    bound: float = 0.1
    temperature: float = 1.0
    process: Absorbing = field(default_factory=Absorbing)

    def __post_init__(self):
        if self.bound < 0:
            raise UserError(f'the entropy bound {self.bound} must not be negative')

    def start(self, keys: jax.Array, codes: jax.Array, roles: jax.Array, layout: TokenLayout) -> State:
        return State(all_masked(codes, roles, layout), keys)

    def _reveal(self, state: State, masked: jax.Array, denoiser: Denoiser, roles: jax.Array,
                layout: TokenLayout) -> State:
        keys, draw = split_each(state.keys, 2)
        share = jnp.sum(masked, axis=1) / jnp.maximum(jnp.sum(roles == GENERATED, axis=1), 1)
        logits = denoiser(state.codes, clock_of(roles, noise_level(self.process.schedule, share)[:, None]))
        uncertain = jnp.where(masked, per_token(logits, layout, entropy), jnp.inf)
        inside = jnp.cumsum(jnp.sort(uncertain, axis=1), axis=1)
        # The sum without the largest is the sum up to the token before.
        before = jnp.concatenate([jnp.zeros_like(inside[:, :1]), inside[:, :-1]], axis=1)
        chosen = highest(-uncertain, jnp.sum(before <= self.bound, axis=1)) & masked
        return State(jnp.where(chosen, propose(draw, logits, layout, self.temperature), state.codes), keys)
