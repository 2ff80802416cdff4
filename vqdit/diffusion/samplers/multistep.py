"""Multistep exponential integrators in lambda = log(alpha / sigma): several orders for one evaluation a step.

With h = lambda(s) - lambda(t), D0 the clean prediction at t, D1 and D2 its divided differences over earlier steps:

    (1)  z_s = sigma(s) / sigma(t) z_t + alpha(s) (phi1 D0 + phi2 D1 + phi3 D2)
         phi1 = 1 - exp(-h),  phi2 = (h - phi1) / h,  phi3 = 2 (h^2 / 2 - h + phi1) / h^2

which is exact when the clean prediction is D0 + D1 u + D2 u^2 at lambda(t) + u h. Published codes of order 3 carry
half of phi3, which is not. The first steps have no past, and the last, to noise level 0, has an infinite h: both take
the order they can.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path
from vqdit.diffusion.samplers.solvers import Model, check_order, normal


class Past(NamedTuple):
    """The latest clean predictions, newest first, where they were made, and how many there are."""

    clean: jax.Array
    times: jax.Array
    length: jax.Array


def _remember(past: Past, clean: jax.Array, t: jax.Array) -> Past:
    return Past(jnp.concatenate([clean[None], past.clean[:-1]]),
                jnp.concatenate([jnp.reshape(t, (1,)), past.times[:-1]]), past.length + 1)


def _nothing(z: jax.Array, length: int) -> Past:
    return Past(jnp.zeros((length, *z.shape), z.dtype), jnp.ones(length, z.dtype), jnp.zeros((), jnp.int32))


def _half_log_snr(path: Path, t: jax.Array) -> jax.Array:
    return jnp.log(path.alpha(t)) - jnp.log(path.sigma(t))


def _step_size(path: Path, t: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether h is finite, and h, or 1 where it is not."""
    inner = (path.sigma(s) > 0) & (path.alpha(t) > 0)
    early, late = jnp.where(inner, s, 0.4), jnp.where(inner, t, 0.5)
    return inner, jnp.where(inner, _half_log_snr(path, early) - _half_log_snr(path, late), 1.0)


def _safe(x: jax.Array, known: jax.Array) -> jax.Array:
    """x where it is known, else 1, so that nothing infinite is ever computed with."""
    return jnp.where(known, x, 1.0)


def differences(past: Past, path: Path, h: jax.Array, order: int) -> tuple[jax.Array, jax.Array]:
    """D1 and D2 of (1), zero where the past is too short or the order too low."""
    now = _half_log_snr(path, past.times[0])
    zero = jnp.zeros_like(past.clean[0])
    if order < 2:
        return zero, zero
    known = (past.length >= 2) & (path.alpha(past.times[1]) > 0)
    r0 = _safe((now - _half_log_snr(path, past.times[1])) / h, known)
    first = jnp.where(known, (past.clean[0] - past.clean[1]) / r0, 0.0)
    if order < 3:
        return first, zero
    known = known & (past.length >= 3) & (path.alpha(past.times[2]) > 0)
    r1 = _safe((_half_log_snr(path, past.times[1]) - _half_log_snr(path, past.times[2])) / h, known)
    second = jnp.where(known, (first - (past.clean[1] - past.clean[2]) / r1) / (r0 + r1), 0.0)
    return first + r0 * second, second


@dataclass(frozen=True)
class DPMSolverPlusPlus:
    """(1) with `order` 1 (which is DDIM), 2 or 3 (DPM-Solver++, arXiv:2211.01095, multistep).

    D1 enters order 2 as half of phi1, which is the same to that order. The first step, which has no past, keeps the
    whole of order 3 at order 2, with a smaller error. Raises UserError for another order.
    """

    order: int = 2

    def __post_init__(self):
        check_order(self.order, 3)

    def start(self, z: jax.Array) -> Past:
        return _nothing(z, 3)

    def step(self, keys: jax.Array, model: Model, path: Path, z: jax.Array, memory: Past, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Past]:
        del keys
        past = _remember(memory, model(z, t), t)
        return _exponential_step(past, path, z, t, s, self.order), past


def _exponential_step(past: Past, path: Path, z: jax.Array, t: jax.Array, s: jax.Array, order: int) -> jax.Array:
    """(1) from the newest prediction of `past`, which is that at t."""
    inner, h = _step_size(path, t, s)
    shrink = path.sigma(s) / path.sigma(t)
    phi1 = 1.0 - shrink * path.alpha(t) / path.alpha(s)
    first, second = differences(past, path, h, order)
    if order == 2:
        higher = 0.5 * phi1 * first
    else:
        phi2 = (h - phi1) / h
        higher = phi2 * first + 2.0 * (0.5 * h**2 - h + phi1) / h**2 * second
    return shrink * z + path.alpha(s) * (phi1 * past.clean[0] + jnp.where(inner, higher, 0.0))


@dataclass(frozen=True)
class DPMSolverPlusPlusSDE:
    """The stochastic relative of order 2 (SDE-DPM-Solver++(2M), arXiv:2211.01095): noise is renewed at every step."""

    order: int = 2

    def __post_init__(self):
        check_order(self.order, 2)

    def start(self, z: jax.Array) -> Past:
        return _nothing(z, 3)

    def step(self, keys: jax.Array, model: Model, path: Path, z: jax.Array, memory: Past, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Past]:
        past = _remember(memory, model(z, t), t)
        inner, h = _step_size(path, t, s)
        decay = path.sigma(s) * path.alpha(t) / (path.sigma(t) * path.alpha(s))
        first, _ = differences(past, path, h, self.order)
        clean = past.clean[0] + jnp.where(inner, 0.5 * first, 0.0)
        noise = path.sigma(s) * jnp.sqrt(jnp.maximum(1.0 - decay**2, 0.0)) * normal(keys, z)
        mean = path.sigma(s) / path.sigma(t) * decay * z + path.alpha(s) * (1.0 - decay**2) * clean
        return mean + noise, past


class Predicted(NamedTuple):
    """The memory of UniPC: the past, and the sample before the last step."""

    past: Past
    before: jax.Array


@dataclass(frozen=True)
class UniPC:
    """The predictor of `DPMSolverPlusPlus`, corrected by the next evaluation (arXiv:2302.04867, B2(h)).

    The corrector of the step from r to t takes the prediction at t, which the next step needs anyway: its order is
    one above the predictor's. `order` is 1 or 2; raises UserError for another.
    """

    order: int = 2

    def __post_init__(self):
        check_order(self.order, 2)

    def start(self, z: jax.Array) -> Predicted:
        return Predicted(_nothing(z, 3), z)

    def step(self, keys: jax.Array, model: Model, path: Path, z: jax.Array, memory: Predicted, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Predicted]:
        del keys
        clean = model(z, t)
        z = jnp.where(memory.past.length > 0, self._corrected(path, memory, clean, t), z)
        past = _remember(memory.past, clean, t)
        return _exponential_step(past, path, z, t, s, self.order), Predicted(past, z)

    def _corrected(self, path: Path, memory: Predicted, clean: jax.Array, t: jax.Array) -> jax.Array:
        """The last step, from r to t, anew [B, N, C]: with weights that make (1) exact for clean predictions that are
        linear in lambda, or quadratic when there is a step before r."""
        past, r = memory.past, memory.past.times[0]
        two = (past.length >= 2) & (self.order == 2) & (path.alpha(past.times[1]) > 0)
        shrink = path.sigma(t) / path.sigma(r)
        phi1 = 1.0 - shrink * path.alpha(r) / path.alpha(t)
        h = jnp.where(two, _half_log_snr(path, t) - _half_log_snr(path, jnp.where(two, r, 0.5)), 1.0)
        earlier = _half_log_snr(path, jnp.where(two, past.times[1], 0.5)) - _half_log_snr(path, r)
        back = jnp.where(two, earlier / h, -1.0)
        linear, quadratic = (h - phi1) / h / phi1, 2.0 * (0.5 * h**2 - h + phi1) / h**2 / phi1
        weight = jnp.where(two, (quadratic - back * linear) / (1.0 - back), 0.5)
        behind = jnp.where(two, (linear - weight) * (past.clean[1] - past.clean[0]) / back, 0.0)
        change = past.clean[0] + behind + weight * (clean - past.clean[0])
        return shrink * memory.before + path.alpha(t) * phi1 * change
