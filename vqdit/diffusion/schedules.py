"""Noise schedules: alpha(t) is the probability that a token (or the share of a signal) is kept at noise level t.

All run from alpha(0) = 1 to alpha(1) = 0.
"""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp


class Schedule(Protocol):
    """A decreasing function of the noise level and its slope."""

    def alpha(self, t: jax.Array) -> jax.Array: ...

    def slope(self, t: jax.Array) -> jax.Array: ...


@dataclass(frozen=True)
class Linear:
    """alpha(t) = 1 - t: the masked share is the noise level itself (log-linear in MDLM, arXiv:2406.07524)."""

    def alpha(self, t: jax.Array) -> jax.Array:
        return 1.0 - t

    def slope(self, t: jax.Array) -> jax.Array:
        return -jnp.ones_like(t)


@dataclass(frozen=True)
class Cosine:
    """alpha(t) = 1 - sin(pi t / 2): few tokens are fixed in the first steps, as in MaskGIT (arXiv:2202.04200)."""

    def alpha(self, t: jax.Array) -> jax.Array:
        return 1.0 - jnp.sin(0.5 * jnp.pi * t)

    def slope(self, t: jax.Array) -> jax.Array:
        return -0.5 * jnp.pi * jnp.cos(0.5 * jnp.pi * t)


@dataclass(frozen=True)
class Polynomial:
    """alpha(t) = 1 - t^power."""

    power: float = 2.0

    def alpha(self, t: jax.Array) -> jax.Array:
        return 1.0 - t**self.power

    def slope(self, t: jax.Array) -> jax.Array:
        return -self.power * t ** (self.power - 1)


SCHEDULES = {'linear': Linear, 'cosine': Cosine, 'polynomial': Polynomial}
