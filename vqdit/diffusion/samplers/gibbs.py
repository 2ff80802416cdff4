"""A corrector: Gibbs steps that leave the law of the noisy codes at a noise level as it is."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical import MaskAndReplace, leave_one_out
from vqdit.diffusion.clock import GENERATED, clock_of
from vqdit.diffusion.denoiser import Denoiser
from vqdit.diffusion.samplers.shared import propose, split_each
from vqdit.tokenizers.spec import TokenLayout


@dataclass(frozen=True)
class LeaveOneOutGibbs:
    """Draws one random generated token of every sample anew, from q(z_i | the other noisy tokens).

    That is a code from the leave-one-out denoiser, noised afresh: exact for a perfect denoiser, so that it mends the
    errors of other steps. `process` must replace codes, since a masked token says nothing that could be mended.
    """

    process: MaskAndReplace

    def __call__(self, keys: jax.Array, denoiser: Denoiser, noisy: jax.Array, roles: jax.Array, t: jax.Array,
                 layout: TokenLayout) -> jax.Array:
        """Noisy codes int32 [B, N] at noise level t, one token of every row drawn anew."""
        choose, draw, noise = split_each(keys, 3)
        clock = clock_of(roles, jnp.broadcast_to(t, (1, 1)))
        seen, times = layout.split(noisy), layout.split(clock)
        logits = {name: leave_one_out(self.process, values, seen[name], times[name])
                  for name, values in denoiser(noisy, clock).items()}
        fresh = jax.vmap(lambda key, x, level: self.process.corrupt(key, x[None], level[None],
                                                                    jnp.asarray(layout.mask_ids))[0])(
            noise, propose(draw, logits, layout, 1.0), clock)
        score = jax.vmap(lambda key: jax.random.uniform(key, roles.shape[1:]))(choose)
        place = jnp.argmax(jnp.where(roles == GENERATED, score, -1.0), axis=1)
        chosen = (jnp.arange(noisy.shape[1])[None] == place[:, None]) & (roles == GENERATED)
        return jnp.where(chosen, fresh, noisy)
