"""Paths from data to noise: z_t = alpha(t) x + sigma(t) noise, from z_0 = x on.

Noise levels [...] in [0, 1]. The signal-to-noise ratio is alpha^2 / sigma^2; its logarithm falls all the way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError


class Path(Protocol):
    """The two coefficients."""

    def alpha(self, t: jax.Array) -> jax.Array: ...

    def sigma(self, t: jax.Array) -> jax.Array: ...


def slopes(path: Path, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """d alpha / dt and d sigma / dt."""
    return tuple(jax.jvp(f, (t,), (jnp.ones_like(t),))[1] for f in (path.alpha, path.sigma))


def log_snr(path: Path, t: jax.Array) -> jax.Array:
    """log(alpha^2 / sigma^2), infinite at the ends."""
    return 2.0 * (jnp.log(path.alpha(t)) - jnp.log(path.sigma(t)))


def log_snr_slope(path: Path, t: jax.Array) -> jax.Array:
    """The derivative of `log_snr`."""
    alpha_slope, sigma_slope = slopes(path, t)
    return 2.0 * (alpha_slope / path.alpha(t) - sigma_slope / path.sigma(t))


def time_at(path: Path, level: jax.Array) -> jax.Array:
    """The noise level [...] at which `log_snr` is `level [...]`, by bisection; 0 or 1 where it never is."""
    def halve(bounds, _):
        low, high = bounds
        middle = 0.5 * (low + high)
        too_clean = log_snr(path, middle) > level
        return (jnp.where(too_clean, middle, low), jnp.where(too_clean, high, middle)), None

    (low, high), _ = jax.lax.scan(halve, (jnp.zeros_like(level), jnp.ones_like(level)), length=60)
    return jnp.where(low > 0, high, 0.0)


@dataclass(frozen=True)
class Flow:
    """A straight line: alpha = 1 - t, sigma = t (flow matching, arXiv:2210.02747; rectified flow, arXiv:2209.03003)."""

    def alpha(self, t: jax.Array) -> jax.Array:
        return 1.0 - t

    def sigma(self, t: jax.Array) -> jax.Array:
        return t


@dataclass(frozen=True)
class Trigonometric:
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2): the cosine schedule that preserves variance, GVP in SiT."""

    def alpha(self, t: jax.Array) -> jax.Array:
        return jnp.sin(0.5 * jnp.pi * (1.0 - t))

    def sigma(self, t: jax.Array) -> jax.Array:
        return jnp.sin(0.5 * jnp.pi * t)


@dataclass(frozen=True)
class PreservingLinear:
    """Variance-preserving with noise added at a rate that grows linearly (arXiv:2011.13456, equation (33)).

    alpha(1) is 0.007 with the usual rates: what is left of the signal there is lost in the prior.
    """

    low: float = 0.1
    high: float = 20.0

    def _log_alpha(self, t: jax.Array) -> jax.Array:
        return -0.25 * t**2 * (self.high - self.low) - 0.5 * t * self.low

    def alpha(self, t: jax.Array) -> jax.Array:
        return jnp.exp(self._log_alpha(t))

    def sigma(self, t: jax.Array) -> jax.Array:
        return jnp.sqrt(-jnp.expm1(2.0 * self._log_alpha(t)))


@dataclass(frozen=True)
class Exploding:
    """alpha = 1, sigma = largest t^power: EDM (arXiv:2206.00364), whose own grid is uniform in t for power 7."""

    largest: float = 80.0
    power: float = 7.0

    def alpha(self, t: jax.Array) -> jax.Array:
        return jnp.ones_like(t)

    def sigma(self, t: jax.Array) -> jax.Array:
        return self.largest * t**self.power


@dataclass(frozen=True)
class Betas:
    """The variance-preserving path of T variances beta (DDPM, arXiv:2006.11239): step n of T is t = n / T.

    Between the steps the logarithm of alpha is linear. Raises UserError for a beta outside (0, 1).
    """

    betas: tuple[float, ...]

    def __post_init__(self):
        if not self.betas or not all(0 < beta < 1 for beta in self.betas):
            raise UserError('every beta of a path must lie between 0 and 1')

    @classmethod
    def linear(cls, steps: int = 1000, low: float = 1e-4, high: float = 0.02) -> 'Betas':
        """The schedule of DDPM and of the published DiT."""
        return cls(tuple(np.linspace(low, high, steps).tolist()))

    def _log_alpha(self, t: jax.Array) -> jax.Array:
        steps = np.concatenate([[0.0], 0.5 * np.cumsum(np.log1p(-np.asarray(self.betas)))])
        grid = np.linspace(0.0, 1.0, len(steps))
        return jnp.interp(t, jnp.asarray(grid, t.dtype), jnp.asarray(steps, t.dtype))

    def alpha(self, t: jax.Array) -> jax.Array:
        return jnp.exp(self._log_alpha(t))

    def sigma(self, t: jax.Array) -> jax.Array:
        return jnp.sqrt(-jnp.expm1(2.0 * self._log_alpha(t)))


def shift_time(t: jax.Array, shift: float) -> jax.Array:
    """s t / (1 + (s - 1) t): on `Flow`, the level at which sigma / alpha is s times as large as at t."""
    return shift * t / (1.0 + (shift - 1.0) * t)


def length_shift(length: int, reference: int) -> float:
    """The shift that makes up for the redundancy of `length` tokens beside `reference` of them: the root of their ratio
    (arXiv:2403.03206, equation (23))."""
    return float(np.sqrt(length / reference))


PATHS: dict[str, Callable[..., Path]] = {
    'flow': Flow, 'trigonometric': Trigonometric, 'preserving_linear': PreservingLinear, 'exploding': Exploding,
    'betas': Betas.linear}
"""By name, each with its own settings."""
