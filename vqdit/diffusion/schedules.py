"""Noise schedules: alpha(t) is the probability that a token (or the share of a signal) is kept at noise level t.

All but `Constant` and `Partial` run from alpha(0) = 1 to alpha(1) = 0.
"""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError


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


@dataclass(frozen=True)
class Geometric:
    """alpha(t) = exp(-sigma(t)), sigma(t) = low^(1 - t) high^t (arXiv:2310.16834), stretched to reach 1 and 0.

    Raises UserError unless 0 < low < high.
    """

    low: float = 1e-3
    high: float = 20.0

    def __post_init__(self):
        if not 0 < self.low < self.high:
            raise UserError(f'the geometric schedule needs 0 < low < high, not {self.low} and {self.high}')

    def _sigma(self, t: jax.Array) -> jax.Array:
        return self.low * jnp.exp(t * np.log(self.high / self.low).item())

    def _span(self) -> float:
        return float(np.exp(-self.low) - np.exp(-self.high))

    def alpha(self, t: jax.Array) -> jax.Array:
        return jnp.maximum(jnp.exp(-self._sigma(t)) - float(np.exp(-self.high)), 0.0) / self._span()

    def slope(self, t: jax.Array) -> jax.Array:
        sigma = self._sigma(t)
        return -np.log(self.high / self.low).item() * sigma * jnp.exp(-sigma) / self._span()


@dataclass(frozen=True)
class Table:
    """alpha at equally spaced noise levels, straight lines between them: a schedule that was learned or measured.

    Raises UserError unless the values fall from 1 to 0.
    """

    values: tuple[float, ...] = (1.0, 0.0)

    def __post_init__(self):
        if self.values[:1] != (1.0,) or self.values[-1:] != (0.0,) or np.any(np.diff(self.values) >= 0):
            raise UserError(f'a schedule table must fall from 1 to 0, step by step, not {self.values}')

    def alpha(self, t: jax.Array) -> jax.Array:
        return jnp.interp(t, jnp.linspace(0, 1, len(self.values), dtype=t.dtype), jnp.asarray(self.values, t.dtype))

    def slope(self, t: jax.Array) -> jax.Array:
        pieces = len(self.values) - 1
        place = jnp.clip(jnp.floor(t * pieces).astype(jnp.int32), 0, pieces - 1)
        return jnp.asarray(np.diff(self.values) * pieces, t.dtype)[place]


@dataclass(frozen=True)
class Constant:
    """alpha(t) = 1: nothing is ever lost. Half of a process that loses tokens in two ways."""

    def alpha(self, t: jax.Array) -> jax.Array:
        return jnp.ones_like(t)

    def slope(self, t: jax.Array) -> jax.Array:
        return jnp.zeros_like(t)


@dataclass(frozen=True)
class Partial:
    """Another schedule that stops short of the end: alpha(1) = `remaining`, in [0, 1]."""

    schedule: Schedule
    remaining: float

    def alpha(self, t: jax.Array) -> jax.Array:
        return self.remaining + (1.0 - self.remaining) * self.schedule.alpha(t)

    def slope(self, t: jax.Array) -> jax.Array:
        return (1.0 - self.remaining) * self.schedule.slope(t)


SCHEDULES = {'linear': Linear, 'cosine': Cosine, 'polynomial': Polynomial, 'geometric': Geometric}
