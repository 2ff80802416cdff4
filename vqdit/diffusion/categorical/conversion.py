"""Two denoisers that answer different questions, and the algebra between them.

The plain one is p(x_i | z); the leave-one-out one p(x_i | z without z_i) does not look at the token's own noisy value.
By Bayes, with q the process:

    p(x_i | z) = p(x_i | z without z_i) q(z_i | x_i) / normaliser

Cross-entropy trains the plain one; the bound of UDLM (arXiv:2412.10193) with a network plugged into the posterior
trains the leave-one-out one. All losses and samplers here take the plain one.
"""

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical.by_modality import Process, part_of
from vqdit.diffusion.categorical.process import Categorical
from vqdit.diffusion.denoiser import Denoiser
from vqdit.tokenizers.spec import TokenLayout


def plain(process: Categorical, logits: jax.Array, noisy: jax.Array, clock: jax.Array) -> jax.Array:
    """Log-probabilities [B, n, K] of p(x | z) from the `logits` that leave a token's own value out."""
    return jax.nn.log_softmax(logits + _log_likelihood(process, logits, noisy, clock))


def leave_one_out(process: Categorical, logits: jax.Array, noisy: jax.Array, clock: jax.Array) -> jax.Array:
    """The inverse of `plain`, where the noisy value is possible for every x (not of an unmasked `Absorbing` token)."""
    return jax.nn.log_softmax(logits - _log_likelihood(process, logits, noisy, clock))


def as_plain(process: Process, denoiser: Denoiser, layout: TokenLayout) -> Denoiser:
    """A leave-one-out denoiser made plain, for every loss and sampler."""
    def converted(codes: jax.Array, clock: jax.Array) -> dict[str, jax.Array]:
        noisy, times = layout.split(codes), layout.split(clock)
        return {name: plain(part_of(process, name), logits, noisy[name], times[name])
                for name, logits in denoiser(codes, clock).items()}
    return converted


def _log_likelihood(process: Categorical, logits: jax.Array, noisy: jax.Array, clock: jax.Array) -> jax.Array:
    likelihood = process.likelihood(noisy, clock, logits.shape[-1])
    return jnp.log(jnp.maximum(likelihood, jnp.finfo(likelihood.dtype).tiny))
