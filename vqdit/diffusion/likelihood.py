"""Likelihood bounds of the absorbing process: any modalities given any others, in nats.

Equation (3) of `categorical` with the task's clock is an upper bound of -log p(generated | given), tight for a
perfect denoiser. Its expectation over noise levels is estimated by stratified draws.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import GENERATED, clock_of, stratified_times
from vqdit.tokenizers.spec import TokenLayout

Denoiser = Callable[[jax.Array, jax.Array], Any]
"""`(codes [B, N], clock [B, N]) -> {modality: logits [B, n, K]}`."""


def token_losses(process: Absorbing, denoiser: Denoiser, layout: TokenLayout, codes: jax.Array, noisy: jax.Array,
                 clock: jax.Array) -> jax.Array:
    """The integrand of the bound for every token, fp32 [B, N] nats; zero where a token is not masked."""
    logits, clean, seen, times = denoiser(noisy, clock), *(layout.split(x) for x in (codes, noisy, clock))
    return layout.join({name: process.loss(logits[name], clean[name], seen[name], times[name], spec.mask_id)
                        for name, spec in layout.specs.items()})


def negative_log_likelihood_bound(key: jax.Array, process: Absorbing, denoiser: Denoiser, layout: TokenLayout,
                                  codes: jax.Array, roles: jax.Array) -> jax.Array:
    """One estimate per example of the bound of -log p(generated tokens | given tokens), fp32 [B] nats.

    All generated tokens share the noise level of their example; the levels of the batch are stratified.
    """
    times, noise = jax.random.split(key)
    clock = clock_of(roles, stratified_times(times, codes.shape[0])[:, None])
    noisy = process.corrupt(noise, codes, clock, jnp.asarray(layout.mask_ids))
    losses = token_losses(process, denoiser, layout, codes, noisy, clock)
    return jnp.sum(jnp.where(roles == GENERATED, losses, 0.0), axis=1)
