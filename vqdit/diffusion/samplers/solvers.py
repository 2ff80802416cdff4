"""Solvers for Gaussian processes: from noise to data along a time grid.

A model is a function `(z [B, N, C], t) -> clean [B, N, C]`, the mean of x given z_t = z; t a scalar. With noise =
(z - alpha clean) / sigma the probability flow and its stochastic relatives are

    (1)  dz/dt = alpha' clean + sigma' noise
    (2)  dz = (alpha' clean + sigma' noise + g^2 noise / (2 sigma)) dt + g dW, backwards in time, for any g(t) >= 0

all of which have the marginals of the process (arXiv:2011.13456; arXiv:2303.08797). A solver is `start(z) -> memory`
and `step(key, model, path, z, memory, t, s) -> (z, memory)`; the order says how its error shrinks with the step.
A step that ends at s = 0 returns the clean vectors, whatever its order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path, slopes
from vqdit.diffusion.gaussian.process import posterior
from vqdit.errors import UserError

Model = Callable[[jax.Array, jax.Array], jax.Array]
Memory = Any


class Solver(Protocol):
    """One step from noise level t to s < t."""

    def start(self, z: jax.Array) -> Memory: ...

    def step(self, key: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]: ...


def solve(solver: Solver, model: Model, path: Path, z: jax.Array, grid: jax.Array, key: jax.Array,
          trajectory: bool = False) -> jax.Array:
    """z at the end of `grid [steps + 1]`, [B, N, C]; all of them, [steps + 1, B, N, C], when `trajectory`."""
    def body(state, times):
        z, memory, key = state
        key, noise = jax.random.split(key)
        z, memory = solver.step(noise, model, path, z, memory, *times)
        return (z, memory, key), z if trajectory else None

    (final, *_), passed = jax.lax.scan(body, (z, solver.start(z), key), (grid[:-1], grid[1:]))
    return jnp.concatenate([z[None], passed]) if trajectory else final


def noise_in(path: Path, z: jax.Array, clean: jax.Array, t: jax.Array) -> jax.Array:
    """The noise [B, N, C] in z; zero at noise level 0."""
    sigma = path.sigma(t)
    return jnp.where(sigma > 0, z - path.alpha(t) * clean, 0.0) / jnp.where(sigma > 0, sigma, 1.0)


def velocity(model: Model, path: Path, z: jax.Array, t: jax.Array) -> jax.Array:
    """(1), [B, N, C]."""
    clean, (alpha_slope, sigma_slope) = model(z, t), slopes(path, t)
    return alpha_slope * clean + sigma_slope * noise_in(path, z, clean, t)


class _Memoryless:
    def start(self, z: jax.Array) -> Memory:
        del z


@dataclass(frozen=True)
class DDIM(_Memoryless):
    """Order 1, exact when the clean prediction does not change (arXiv:2010.02502).

    `eta` 0 is deterministic and, on `Flow`, Euler's method; `eta` 1 is the ancestral sampler of DDPM.
    """

    eta: float = 0.0

    def step(self, key: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        clean = model(z, t)
        _, variance = posterior(path, z, clean, t, s)
        fresh = self.eta**2 * variance
        kept = jnp.sqrt(jnp.maximum(path.sigma(s) ** 2 - fresh, 0.0))
        z = path.alpha(s) * clean + kept * noise_in(path, z, clean, t)
        return z + jnp.sqrt(fresh) * jax.random.normal(key, z.shape, z.dtype), memory


@dataclass(frozen=True)
class Euler(_Memoryless):
    """Euler's method on (1): order 1."""

    def step(self, key: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        del key
        return z + (s - t) * velocity(model, path, z, t), memory


@dataclass(frozen=True)
class Heun(_Memoryless):
    """Heun's method on (1): order 2, two evaluations a step, and one where it ends at 0 as in EDM."""

    def step(self, key: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        del key
        slope = velocity(model, path, z, t)
        guess = z + (s - t) * slope
        corrected = lambda: z + 0.5 * (s - t) * (slope + velocity(model, path, guess, s))
        return jax.lax.cond(s > 0, corrected, lambda: guess), memory


@dataclass(frozen=True)
class RungeKutta4(_Memoryless):
    """The classical method of order 4 on (1), four evaluations a step; the last step to 0 is an Euler step."""

    def step(self, key: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        del key
        h, middle = s - t, 0.5 * (t + s)
        first = velocity(model, path, z, t)

        def rest():
            second = velocity(model, path, z + 0.5 * h * first, middle)
            third = velocity(model, path, z + 0.5 * h * second, middle)
            fourth = velocity(model, path, z + h * third, s)
            return z + h / 6 * (first + 2 * second + 2 * third + fourth)

        return jax.lax.cond(s > 0, rest, lambda: z + h * first), memory


@dataclass(frozen=True)
class EulerMaruyama(_Memoryless):
    """Euler-Maruyama on (2): weak order 1. `diffusion(path, t)` is g^2; zero makes it `Euler`.

    The last step, to 0, adds no noise.
    """

    diffusion: Callable[[Path, jax.Array], jax.Array] = lambda path, t: path.sigma(t)

    def step(self, key: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        clean, (alpha_slope, sigma_slope) = model(z, t), slopes(path, t)
        noise, square = noise_in(path, z, clean, t), self.diffusion(path, t)
        drift = alpha_slope * clean + (sigma_slope + 0.5 * square / path.sigma(t)) * noise
        shaken = jnp.sqrt(square * (t - s)) * jax.random.normal(key, z.shape, z.dtype)
        return z + (s - t) * drift + jnp.where(s > 0, shaken, 0.0), memory


@dataclass(frozen=True)
class Churn(_Memoryless):
    """Another solver that is lifted to a higher noise level before every step (EDM, arXiv:2206.00364, algorithm 2).

    `amount` is the share by which sigma / alpha grows; 0 is the other solver itself.
    """

    solver: Solver
    amount: float = 0.1

    def start(self, z: jax.Array) -> Memory:
        return self.solver.start(z)

    def step(self, key: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        noise, rest = jax.random.split(key)
        higher = _noisier(path, t, 1.0 + self.amount)
        ratio = path.alpha(higher) / path.alpha(t)
        added = jnp.where(higher > t, path.sigma(higher) ** 2 - (ratio * path.sigma(t)) ** 2, 0.0)
        z = ratio * z + jnp.sqrt(added) * jax.random.normal(noise, z.shape, z.dtype)
        return self.solver.step(rest, model, path, z, memory, higher, s)


def _noisier(path: Path, t: jax.Array, factor: float) -> jax.Array:
    """The noise level, at most 1, at which sigma / alpha is `factor` times that at t."""
    wanted = factor * path.sigma(t) / path.alpha(t)
    low, high = t, jnp.ones_like(t)
    for _ in range(30):
        middle = 0.5 * (low + high)
        below = path.sigma(middle) < wanted * path.alpha(middle)
        low, high = jnp.where(below, middle, low), jnp.where(below, high, middle)
    return jnp.where(factor > 1, low, t)


def check_order(order: int, highest: int) -> None:
    """Raises UserError for an order outside of 1 to `highest`."""
    if not 1 <= order <= highest:
        raise UserError(f'the order {order} is not between 1 and {highest}')
