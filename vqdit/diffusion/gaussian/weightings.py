"""Weights of the squared error of the noise, as functions of the path and the noise level: [...] -> [...].

An error of x is snr times as large as one of the noise: divide by it to weigh errors of x instead.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path, log_snr, log_snr_slope

Weighting = Callable[[Path, jax.Array], jax.Array]


def simple(path: Path, t: jax.Array) -> jax.Array:
    """1 (DDPM, arXiv:2006.11239)."""
    del path
    return jnp.ones_like(t)


def velocity(path: Path, t: jax.Array) -> jax.Array:
    """An error of the velocity weighs 1, as in flow matching (arXiv:2210.02747)."""
    return (0.5 * path.sigma(t) * log_snr_slope(path, t)) ** 2


def preconditioned(deviation: float = 1.0) -> Weighting:
    """An error of what EDM's network answers weighs 1 (arXiv:2206.00364, table 1), as one of v does where variances
    are preserved and the data has a standard deviation of 1."""
    return lambda path, t: 1.0 + (path.sigma(t) / (path.alpha(t) * deviation)) ** 2


def likelihood(path: Path, t: jax.Array) -> jax.Array:
    """That of the bound of -log p(x), equation (3) of `process`; t away from 0, where it grows without bound."""
    return -0.5 * log_snr_slope(path, t)


def min_snr(limit: float = 5.0) -> Weighting:
    """min(snr, limit) / snr (arXiv:2303.09556): errors of x weigh at most `limit`."""
    return lambda path, t: jnp.minimum(1.0, limit * jnp.exp(-log_snr(path, t)))


def p2(power: float = 1.0, offset: float = 1.0) -> Weighting:
    """1 / (offset + snr)^power (arXiv:2204.00227)."""
    return lambda path, t: (offset + jnp.exp(log_snr(path, t))) ** -power


def sigmoid(bias: float = 2.0) -> Weighting:
    """The weight of the bound times sigmoid(bias - log snr) (arXiv:2303.00848; arXiv:2410.19324)."""
    return lambda path, t: likelihood(path, t) * jax.nn.sigmoid(bias - log_snr(path, t))


WEIGHTINGS: dict[str, Callable[..., Weighting]] = {
    'simple': lambda: simple, 'velocity': lambda: velocity, 'preconditioned': preconditioned,
    'likelihood': lambda: likelihood, 'min_snr': min_snr, 'p2': p2, 'sigmoid': sigmoid}
"""By name, each with its own settings."""


def uncertainty(error: jax.Array, log_variances: jax.Array, t: jax.Array) -> jax.Array:
    """error / exp(u(t)) + u(t), [...]: a learned u brings every noise level to the same scale (EDM2, arXiv:2312.02696,
    equation (14)). Straight lines lead through its values `log_variances [n]` at equally spaced levels; at its best u
    is the logarithm of the mean error."""
    u = jnp.interp(t, jnp.linspace(0.0, 1.0, len(log_variances), dtype=t.dtype), log_variances)
    return error * jnp.exp(-u) + u
