"""What every sampler of codes is: a start, a step, and how many of them; run in one `lax.scan`.

From this follow samples, the whole way to them, and a call after every step, for all samplers alike.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vqdit.diffusion.denoiser import Denoiser
from vqdit.tokenizers.spec import TokenLayout


class State(NamedTuple):
    """Between two steps: noisy codes int32 [B, N], keys [B], and what else a sampler remembers."""

    codes: jax.Array
    keys: jax.Array
    memory: Any = ()


class Stepwise:
    """The base of the samplers of codes. Its subclasses are frozen dataclasses with the three methods below.

    `keys [B]`, one of every sample; `codes int32 [B, N]`, of which the given ones count; `roles int32 [B, N]`.
    """

    def length(self, layout: TokenLayout) -> int:
        """How many steps a sample takes, at most."""
        raise NotImplementedError

    def start(self, keys: jax.Array, codes: jax.Array, roles: jax.Array, layout: TokenLayout) -> State:
        """The state at noise level 1."""
        raise NotImplementedError

    def step(self, index: jax.Array, state: State, denoiser: Denoiser, roles: jax.Array,
             layout: TokenLayout) -> State:
        """The state after step `index`, int32 from 0 to length - 1."""
        raise NotImplementedError

    def __call__(self, keys: jax.Array, denoiser: Denoiser, codes: jax.Array, roles: jax.Array, layout: TokenLayout,
                 on_step: Callable[[int], None] | None = None) -> jax.Array:
        """Samples int32 [B, N]: given tokens as in `codes`, absent ones masked, the others generated.

        `on_step(index)` is called on the host when a step is done; two calls may swap places.
        """
        def body(state, index):
            state = self.step(index, state, denoiser, roles, layout)
            if on_step is not None:
                jax.debug.callback(lambda index: on_step(int(index)), index)
            return state, None

        start = self.start(keys, codes, roles, layout)
        return jax.lax.scan(body, start, jnp.arange(self.length(layout)))[0].codes

    def trajectory(self, keys: jax.Array, denoiser: Denoiser, codes: jax.Array, roles: jax.Array,
                   layout: TokenLayout) -> jax.Array:
        """The codes at the start and after every step, int32 [length + 1, B, N]; the last are the samples."""
        def body(state, index):
            state = self.step(index, state, denoiser, roles, layout)
            return state, state.codes

        start = self.start(keys, codes, roles, layout)
        _, later = jax.lax.scan(body, start, jnp.arange(self.length(layout)))
        return jnp.concatenate([start.codes[None], later])
