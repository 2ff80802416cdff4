"""Truncation of a denoiser's distributions before codes are drawn: always biased, it trades variety for quality.

It comes after guidance and before the temperature, so that the nucleus is the same at every temperature.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vqdit.diffusion.denoiser import Denoiser
from vqdit.diffusion.samplers.stepwise import State, Stepwise
from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout

Truncation = Callable[[Denoiser], Denoiser]


def top_k(denoiser: Denoiser, count: int) -> Denoiser:
    """Only the `count` likeliest codes of every token, and those as likely as the last of them.

    Raises UserError for fewer than one.
    """
    if count < 1:
        raise UserError(f'top-k needs at least 1 code, not {count}')

    def keep(logits: jax.Array) -> jax.Array:
        last = jax.lax.top_k(logits, min(count, logits.shape[-1]))[0][..., -1:]
        return jnp.where(logits >= last, logits, -jnp.inf)

    return lambda codes, clock: {name: keep(logits) for name, logits in denoiser(codes, clock).items()}


def top_p(denoiser: Denoiser, mass: float) -> Denoiser:
    """The fewest likeliest codes of every token that hold `mass` together (nucleus sampling, arXiv:1904.09751).

    Raises UserError for a mass outside of (0, 1].
    """
    if not 0 < mass <= 1:
        raise UserError(f'top-p needs a mass above 0 and at most 1, not {mass}')

    def keep(logits: jax.Array) -> jax.Array:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(ordered)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        last = jnp.min(jnp.where(before < mass, ordered, jnp.inf), axis=-1, keepdims=True)
        return jnp.where(logits >= last, logits, -jnp.inf)

    return lambda codes, clock: {name: keep(logits) for name, logits in denoiser(codes, clock).items()}


@dataclass(frozen=True)
class Truncated(Stepwise):
    """Another sampler that sees its denoiser through a truncation, whatever the sampler is."""

    sampler: Stepwise
    truncation: Truncation

    def length(self, layout: TokenLayout) -> int:
        return self.sampler.length(layout)

    def start(self, keys: jax.Array, codes: jax.Array, roles: jax.Array, layout: TokenLayout) -> State:
        return self.sampler.start(keys, codes, roles, layout)

    def step(self, index: jax.Array, state: State, denoiser: Denoiser, roles: jax.Array,
             layout: TokenLayout) -> State:
        return self.sampler.step(index, state, self.truncation(denoiser), roles, layout)
