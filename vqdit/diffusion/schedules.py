"""Noise schedules: alpha(t) is the probability that a token (or the share of a signal) is kept at noise level t.

All but `Constant` and `Partial` run from alpha(0) = 1 to alpha(1) = 0.
"""

from collections.abc import Callable
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
    """alpha(t) = 1 - t^power. Raises UserError unless the power is positive."""

    power: float = 2.0

    def __post_init__(self):
        if self.power <= 0:
            raise UserError(f'the polynomial schedule needs a power above 0, not {self.power}')

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
    """Another schedule that stops short of the end: alpha(1) = `remaining`. Raises UserError outside of [0, 1]."""

    schedule: Schedule
    remaining: float

    def __post_init__(self):
        if not 0 <= self.remaining <= 1:
            raise UserError(f'what remains at noise level 1 is a share in [0, 1], not {self.remaining}')

    def alpha(self, t: jax.Array) -> jax.Array:
        return self.remaining + (1.0 - self.remaining) * self.schedule.alpha(t)

    def slope(self, t: jax.Array) -> jax.Array:
        return (1.0 - self.remaining) * self.schedule.slope(t)


SCHEDULES = {'linear': Linear, 'cosine': Cosine, 'polynomial': Polynomial, 'geometric': Geometric, 'table': Table}


def check_ends(alpha: Callable[[jax.Array], jax.Array]) -> None:
    """Raises UserError unless everything is left at noise level 0 and nothing at 1."""
    with jax.ensure_compile_time_eval():
        start, end = (float(alpha(jnp.asarray(t, jnp.float32))) for t in (0.0, 1.0))
    if abs(start - 1.0) > 1e-6:
        raise UserError(f'{start:.4g} of every token is left at noise level 0; choose a schedule that starts at 1')
    if abs(end) > 1e-6:
        raise UserError(f'{end:.2g} of every token is left at noise level 1; choose a schedule that ends at 0')


def kept_between(schedule: Schedule, s: jax.Array, t: jax.Array) -> jax.Array:
    """alpha(t) / alpha(s): the chance that what is left at noise level s is left at t >= s."""
    return schedule.alpha(t) / jnp.maximum(schedule.alpha(s), 1e-30)


def noise_level(schedule: Schedule, lost: jax.Array) -> jax.Array:
    """The noise levels at which 1 - alpha(t) is `lost`, by bisection; the shape of `lost`."""
    if isinstance(schedule, Linear):
        return lost
    low, high = jnp.zeros_like(lost), jnp.ones_like(lost)
    for _ in range(24):
        middle = 0.5 * (low + high)
        below = 1.0 - schedule.alpha(middle) < lost
        low, high = jnp.where(below, middle, low), jnp.where(below, high, middle)
    return high
