"""Learned variances of the step backwards (Nichol & Dhariwal 2021, arXiv:2102.09672), as in the published DiT."""

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path
from vqdit.diffusion.gaussian.predictions import spread
from vqdit.diffusion.gaussian.process import posterior


def learned_range(path: Path, out: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
    """Log-variances [B, N, C] of the step from t to s, between the two extremes as `out` in [-1, 1] says.

    1 is the variance of the forward step, -1 that of the posterior; equation (15). At s = 0 the posterior has none
    left: as in DDPM, that of an equal step that ends at t stands in.
    """
    share, t, s = 0.5 * (out + 1.0), spread(t, out), spread(s, out)
    ends = s == 0
    forward, _ = _variances(path, t, s)
    _, backward = _variances(path, jnp.where(ends, jnp.minimum(2.0 * t, 1.0), t), jnp.where(ends, t, s))
    return share * jnp.log(forward) + (1.0 - share) * jnp.log(backward)


def _variances(path: Path, t: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Those of q(z_t | z_s) and of q(z_s | z_t, x)."""
    late, early = path.sigma(t) ** 2, path.sigma(s) ** 2
    between = late - (path.alpha(t) / path.alpha(s)) ** 2 * early
    return between, between * early / late


def variational_term(path: Path, z: jax.Array, clean: jax.Array, guess: jax.Array, log_variance: jax.Array,
                     t: jax.Array, s: jax.Array) -> jax.Array:
    """KL of q(z_s | z_t, x) from N(mean of the guess, exp(log_variance)) in nats, [B, N, C].

    With the guess under `stop_gradient` it trains the variance alone, which is how it is used.
    """
    truth, variance = posterior(path, z, clean, t, s)
    mean, _ = posterior(path, z, guess, t, s)
    gap = log_variance - jnp.log(variance)
    return 0.5 * (gap + jnp.exp(-gap) - 1.0 + (truth - mean) ** 2 * jnp.exp(-log_variance))
