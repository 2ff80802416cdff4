"""Samplers that reverse the process step by step, on any time grid, for any categorical process."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical import Absorbing, Categorical
from vqdit.diffusion.clock import GENERATED, clock_of
from vqdit.diffusion.denoiser import Denoiser
from vqdit.diffusion.samplers.grids import check_steps
from vqdit.diffusion.samplers.shared import all_masked, propose, split_each
from vqdit.tokenizers.spec import TokenLayout


@dataclass(frozen=True)
class Ancestral:
    """Draws z_s given z_t with the denoiser in place of the data: its law is the model's up to O(1/steps).

    The error comes from tokens that change in the same step, which are drawn independently. With `Absorbing`, which
    tokens a step reveals does not depend on the denoiser: a step that reveals none in the whole batch does not run it.
    """

    steps: int
    temperature: float = 1.0
    process: Categorical = field(default_factory=Absorbing)

    def __post_init__(self):
        check_steps(self.steps)

    def __call__(self, keys: jax.Array, denoiser: Denoiser, codes: jax.Array, roles: jax.Array,
                 layout: TokenLayout) -> jax.Array:
        """Samples int32 [B, N]: given tokens as in `codes`, absent ones masked, the others generated."""
        mask_ids, generated = jnp.asarray(layout.mask_ids), roles == GENERATED
        keys, first = split_each(keys, 2)
        noise = jax.vmap(lambda key: self.process.prior(key, mask_ids, 1)[0])(first)
        start = jnp.where(generated, noise, all_masked(codes, roles, layout))

        def body(state, index):
            noisy, keys = state
            t, s = 1.0 - index / self.steps, 1.0 - (index + 1) / self.steps
            keys, draw, move = split_each(keys, 3)
            proposal = lambda: propose(draw, denoiser(noisy, clock_of(roles, t)), layout, self.temperature)
            moved = self._move(move, noisy, proposal, generated, t, s, mask_ids)
            return (jnp.where(generated, moved, noisy), keys), None

        (final, _), _ = jax.lax.scan(body, (start, keys), jnp.arange(self.steps, dtype=jnp.float32))
        return final

    def _move(self, keys: jax.Array, noisy: jax.Array, proposal: Callable[[], jax.Array], generated: jax.Array,
              t: jax.Array, s: jax.Array, mask_ids: jax.Array) -> jax.Array:
        process = self.process
        if isinstance(process, Absorbing):
            revealed = jax.vmap(lambda k, z: process.revealed(k, z[None], t, s, mask_ids)[0])(keys, noisy)
            reveal = revealed & generated
            return jax.lax.cond(jnp.any(reveal), lambda: jnp.where(reveal, proposal(), noisy), lambda: noisy)
        step = jax.vmap(lambda k, z, x: process.step(k, z[None], x[None], t, s, mask_ids)[0])
        return step(keys, noisy, proposal())
