"""Correctors: moves that leave the law of the noisy codes at a noise level as it is, or nearly.

They mend what other steps got wrong; `Ancestral` takes one.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical import Absorbing, Process, leave_one_out, part_of
from vqdit.diffusion.clock import GENERATED, clock_of
from vqdit.diffusion.denoiser import Denoiser
from vqdit.diffusion.samplers.shared import propose, split_each
from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout


@dataclass(frozen=True)
class LeaveOneOutGibbs:
    """Draws one random generated token of every sample anew, from q(z_i | the other noisy tokens).

    That is a code from the leave-one-out denoiser, noised afresh: exact for a perfect denoiser, so that it mends the
    errors of other steps. `process` must replace codes, since a token that absorbing has not masked is never wrong.
    Raises UserError for one that does not.
    """

    process: Process

    def __post_init__(self):
        if isinstance(self.process, Absorbing):
            raise UserError('the Gibbs corrector needs a process that replaces codes, such as "uniform"; '
                            'with "absorbing" choose the forward-backward corrector or the sampler "remasking"')

    def __call__(self, keys: jax.Array, denoiser: Denoiser, noisy: jax.Array, roles: jax.Array, t: jax.Array,
                 layout: TokenLayout) -> jax.Array:
        """Noisy codes int32 [B, N] at noise level t, one token of every row drawn anew."""
        choose, draw, noise = split_each(keys, 3)
        clock = clock_of(roles, t)
        seen, times = layout.split(noisy), layout.split(clock)
        logits = {name: leave_one_out(part_of(self.process, name), values, seen[name], times[name])
                  for name, values in denoiser(noisy, clock).items()}
        fresh = jax.vmap(lambda key, x, level: self.process.corrupt(key, x[None], level[None],
                                                                    jnp.asarray(layout.mask_ids))[0])(
            noise, propose(draw, logits, layout, 1.0), clock)
        score = jax.vmap(lambda key: jax.random.uniform(key, roles.shape[1:]))(choose)
        place = jnp.argmax(jnp.where(roles == GENERATED, score, -1.0), axis=1)
        chosen = (jnp.arange(noisy.shape[1])[None] == place[:, None]) & (roles == GENERATED)
        return jnp.where(chosen, fresh, noisy)


@dataclass(frozen=True)
class ForwardBackward:
    """Noises the codes on from t to t + share (1 - t), and takes them back in one ancestral step.

    Going on is exact; coming back draws the tokens independently, so that the law at t is kept up to O(share^2): two
    tokens have to change (arXiv:2205.14987, section 4.4, with a finite stride). Raises UserError unless 0 < share < 1.
    """

    process: Process
    share: float = 0.1

    def __post_init__(self):
        if not 0 < self.share < 1:
            raise UserError(f'the share of the way to noise lies between 0 and 1, not {self.share}')

    def __call__(self, keys: jax.Array, denoiser: Denoiser, noisy: jax.Array, roles: jax.Array, t: jax.Array,
                 layout: TokenLayout) -> jax.Array:
        """Noisy codes int32 [B, N] at noise level t."""
        forward, draw, back = split_each(keys, 3)
        later, mask_ids = t + self.share * (1.0 - t), jnp.asarray(layout.mask_ids)
        noised = jax.vmap(lambda key, z: self.process.forward(key, z[None], t, later, mask_ids)[0])(forward, noisy)
        noised = jnp.where(roles == GENERATED, noised, noisy)
        proposal = propose(draw, denoiser(noised, clock_of(roles, later)), layout, 1.0)
        mended = jax.vmap(lambda key, z, x: self.process.step(key, z[None], x[None], later, t, mask_ids)[0])(
            back, noised, proposal)
        return jnp.where(roles == GENERATED, mended, noisy)
