"""Likelihood bounds of codes: any modalities given any others, in nats.

The bound of a categorical process with the task's clock is an upper bound of -log p(generated | given), tight for a
perfect denoiser. Its expectation over noise levels is estimated by stratified draws; for the absorbing process there
is an estimator that draws the number of masked tokens instead, without any large weight.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical import Absorbing, Process, part_of
from vqdit.diffusion.clock import ABSENT, GENERATED, GIVEN, clock_of, stratified_times
from vqdit.diffusion.denoiser import Denoiser
from vqdit.diffusion.samplers.shared import highest, log_probability_of
from vqdit.diffusion.schedules import noise_level
from vqdit.tokenizers.spec import TokenLayout


def token_losses(process: Process, denoiser: Denoiser, layout: TokenLayout, codes: jax.Array,
                 noisy: jax.Array, clock: jax.Array) -> jax.Array:
    """The integrand of the bound for every token, fp32 [B, N] nats; zero where a token costs nothing."""
    logits, clean, seen, times = denoiser(noisy, clock), *(layout.split(x) for x in (codes, noisy, clock))
    return layout.join({
        name: part_of(process, name).loss(logits[name], clean[name], seen[name], times[name], spec.mask_id)
        for name, spec in layout.specs.items()})


def noised(key: jax.Array, process: Process, codes: jax.Array, roles: jax.Array, clock: jax.Array,
           layout: TokenLayout) -> jax.Array:
    """What the denoiser sees of `codes`, int32 [B, N]: absent tokens are masks, whatever the process does."""
    mask_ids = jnp.asarray(layout.mask_ids)
    return jnp.where(roles == ABSENT, mask_ids[None], process.corrupt(key, codes, clock, mask_ids))


def negative_log_likelihood_bound(key: jax.Array, process: Process, denoiser: Denoiser,
                                  layout: TokenLayout, codes: jax.Array, roles: jax.Array) -> jax.Array:
    """One estimate per example of the bound of -log p(generated tokens | given tokens), fp32 [B] nats.

    All generated tokens share the noise level of their example; the levels of the batch are stratified.
    """
    times, noise = jax.random.split(key)
    clock = clock_of(roles, stratified_times(times, codes.shape[0])[:, None])
    noisy = noised(noise, process, codes, roles, clock, layout)
    losses = token_losses(process, denoiser, layout, codes, noisy, clock)
    return jnp.sum(jnp.where(roles == GENERATED, losses, 0.0), axis=1)


def masked_count_bound(key: jax.Array, denoiser: Denoiser, layout: TokenLayout, codes: jax.Array,
                       roles: jax.Array, process: Absorbing | None = None) -> jax.Array:
    """As `negative_log_likelihood_bound` for the absorbing process (linear unless given), fp32 [B] nats.

    Masks m of the n generated tokens, m uniform in 1 ... n and stratified over the batch, and weighs their
    cross-entropy with n / m (LLaDA, arXiv:2502.09992, equation (6)): the same mean without large weights.
    """
    count, choose = jax.random.split(key)
    generated = roles == GENERATED
    total = jnp.sum(generated, axis=1)
    hidden = jnp.clip(jnp.ceil(stratified_times(count, codes.shape[0]) * total).astype(jnp.int32), 1, total)
    score = jnp.where(generated, jax.random.uniform(choose, roles.shape), -1.0)
    masked = highest(score, hidden) & generated
    noisy = jnp.where(masked | (roles == ABSENT), jnp.asarray(layout.mask_ids)[None], codes)
    level = noise_level((process or Absorbing()).schedule, hidden / jnp.maximum(total, 1))
    clock = clock_of(roles, level[:, None])
    nats = -log_probability_of(codes, denoiser(noisy, clock), layout)
    return jnp.sum(jnp.where(masked, nats, 0.0), axis=1) * total / jnp.maximum(hidden, 1)


class Estimate(NamedTuple):
    """A mean and half of its 95 % confidence interval."""

    mean: jax.Array
    margin: jax.Array

    def bits(self, tokens: int) -> 'Estimate':
        """Nats of a whole into bits per token."""
        scale = 1.0 / (tokens * jnp.log(2.0))
        return Estimate(self.mean * scale, self.margin * scale)


def estimate(values: jax.Array) -> Estimate:
    """The mean of independent `values [n]`, and 1.96 standard errors; n at least 2."""
    return Estimate(jnp.mean(values), 1.96 * jnp.std(values, ddof=1) / jnp.sqrt(len(values)))


def pointwise_mutual_information(key: jax.Array, bound: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
                                 codes: jax.Array, roles: jax.Array) -> jax.Array:
    """log p(generated | given) - log p(generated), fp32 [B] nats: how much the given tokens tell of the others.

    `bound(key, codes, roles)` is one of the two above. Both terms are estimated with the same noise, which cancels
    much of its variance; for an imperfect denoiser the difference of two bounds bounds nothing.
    """
    alone = jnp.where(roles == GIVEN, ABSENT, roles)
    return bound(key, codes, alone) - bound(key, codes, roles)
