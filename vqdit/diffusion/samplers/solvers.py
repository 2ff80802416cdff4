"""Solvers for Gaussian processes: from noise to data along a time grid.

A model is a function `(z [B, N, C], t) -> clean [B, N, C]`, the mean of x given z_t = z; t a scalar. With noise =
(z - alpha clean) / sigma the probability flow and its stochastic relatives are

    (1)  dz/dt = alpha' clean + sigma' noise
    (2)  dz = (alpha' clean + sigma' noise + g^2 noise / (2 sigma)) dt + g dW, backwards in time, for any g(t) >= 0

all of which have the marginals of the process (arXiv:2011.13456; arXiv:2303.08797). A solver is `start(z) -> memory`
and `step(keys, model, path, z, memory, t, s) -> (z, memory)`; the order says how its error shrinks with the step.
A step that ends at s = 0 returns the clean vectors, whatever the order and the path.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path, log_snr, slopes, time_at
from vqdit.diffusion.gaussian.process import posterior
from vqdit.errors import UserError

Model = Callable[[jax.Array, jax.Array], jax.Array]
Memory = Any


class Solver(Protocol):
    """One step from noise level t to s < t; `keys [B]`, one for every sample."""

    def start(self, z: jax.Array) -> Memory: ...

    def step(self, keys: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]: ...


def solve(solver: Solver, model: Model, path: Path, z: jax.Array, grid: jax.Array, keys: jax.Array,
          trajectory: bool = False) -> jax.Array:
    """z at the end of `grid [steps + 1]`, [B, N, C]; all of them, [steps + 1, B, N, C], when `trajectory`.

    `keys [B]` are those of the samples (`shared.sample_keys`): a sample depends on its own alone.
    """
    def body(state, step):
        z, memory = state
        index, *times = step
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
        z, memory = solver.step(step_keys, model, path, z, memory, *times)
        return (z, memory), z if trajectory else None

    steps = jnp.arange(len(grid) - 1), grid[:-1], grid[1:]
    (final, _), passed = jax.lax.scan(body, (z, solver.start(z)), steps)
    return jnp.concatenate([z[None], passed]) if trajectory else final


def normal(keys: jax.Array, z: jax.Array) -> jax.Array:
    """Normal noise of the shape of `z [B, N, C]`, a key a sample."""
    return jax.vmap(lambda key: jax.random.normal(key, z.shape[1:], z.dtype))(keys)


def noise_in(path: Path, z: jax.Array, clean: jax.Array, t: jax.Array) -> jax.Array:
    """The noise [B, N, C] in z; zero at noise level 0."""
    sigma = path.sigma(t)
    return jnp.where(sigma > 0, z - path.alpha(t) * clean, 0.0) / jnp.where(sigma > 0, sigma, 1.0)


def slope(path: Path, z: jax.Array, clean: jax.Array, t: jax.Array) -> jax.Array:
    """(1), [B, N, C], with the model's answer at hand."""
    alpha_slope, sigma_slope = slopes(path, t)
    return alpha_slope * clean + sigma_slope * noise_in(path, z, clean, t)


def velocity(model: Model, path: Path, z: jax.Array, t: jax.Array) -> jax.Array:
    """(1), [B, N, C]."""
    return slope(path, z, model(z, t), t)


def classical_step(field: Callable[[Any, jax.Array], Any], state: Any, t: jax.Array, s: jax.Array,
                   first: Any = None) -> Any:
    """One step of the classical method of order 4 from t to s on d state / dt = field(state, t); `first` is the slope
    at t, where it is known. States are trees of arrays."""
    h, middle = s - t, 0.5 * (t + s)
    move = lambda by, slope: jax.tree.map(lambda x, k: x + by * k, state, slope)
    first = field(state, t) if first is None else first
    second = field(move(0.5 * h, first), middle)
    third = field(move(0.5 * h, second), middle)
    fourth = field(move(h, third), s)
    return jax.tree.map(lambda x, a, b, c, d: x + h / 6 * (a + 2 * b + 2 * c + d), state, first, second, third, fourth)


class _Memoryless:
    def start(self, z: jax.Array) -> Memory:
        del z


@dataclass(frozen=True)
class DDIM(_Memoryless):
    """Order 1, exact when the clean prediction does not change (arXiv:2010.02502).

    `eta` 0 is deterministic and, on `Flow`, Euler's method; `eta` 1 is the ancestral sampler of DDPM. Raises UserError
    for another outside of them.
    """

    eta: float = 0.0

    def __post_init__(self):
        if not 0 <= self.eta <= 1:
            raise UserError(f'eta {self.eta} is not between 0 (deterministic) and 1 (DDPM)')

    def step(self, keys: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        clean = model(z, t)
        _, variance = posterior(path, z, clean, t, s)
        fresh = self.eta**2 * variance
        kept = jnp.sqrt(jnp.maximum(path.sigma(s) ** 2 - fresh, 0.0))
        z = path.alpha(s) * clean + kept * noise_in(path, z, clean, t)
        return z + jnp.sqrt(fresh) * normal(keys, z), memory


@dataclass(frozen=True)
class Euler(_Memoryless):
    """Euler's method on (1): order 1."""

    def step(self, keys: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        del keys
        clean = model(z, t)
        return jnp.where(s > 0, z + (s - t) * slope(path, z, clean, t), clean), memory


@dataclass(frozen=True)
class Heun(_Memoryless):
    """Heun's method on (1): order 2, two evaluations a step, and one where it ends at 0 as in EDM."""

    def step(self, keys: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        del keys
        clean = model(z, t)
        first = slope(path, z, clean, t)
        corrected = lambda: z + 0.5 * (s - t) * (first + velocity(model, path, z + (s - t) * first, s))
        return jax.lax.cond(s > 0, corrected, lambda: clean), memory


@dataclass(frozen=True)
class RungeKutta4(_Memoryless):
    """The classical method of order 4 on (1), four evaluations a step, and one where it ends at 0."""

    def step(self, keys: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        del keys
        clean = model(z, t)
        moved = lambda: classical_step(lambda z, t: velocity(model, path, z, t), z, t, s, slope(path, z, clean, t))
        return jax.lax.cond(s > 0, moved, lambda: clean), memory


@dataclass(frozen=True)
class EulerMaruyama(_Memoryless):
    """Euler-Maruyama on (2): weak order 1. `diffusion(path, t)` is g^2; zero makes it `Euler`."""

    diffusion: Callable[[Path, jax.Array], jax.Array] = lambda path, t: path.sigma(t)

    def step(self, keys: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        clean, square = model(z, t), self.diffusion(path, t)
        drift = slope(path, z, clean, t) + 0.5 * square / path.sigma(t) * noise_in(path, z, clean, t)
        moved = z + (s - t) * drift + jnp.sqrt(square * (t - s)) * normal(keys, z)
        return jnp.where(s > 0, moved, clean), memory


@dataclass(frozen=True)
class Churn:
    """Another solver that is lifted to a higher noise level before every step (EDM, arXiv:2206.00364, algorithm 2).

    Attributes:
        amount: the share by which sigma / alpha grows; 0 is the other solver itself.
        low, high: noise levels between which it is lifted.
        inflation: the standard deviation of the noise that is added, over what the marginals ask for; a little above 1
            makes up for models that take too much noise away.
    """

    solver: Solver
    amount: float = 0.1
    low: float = 0.0
    high: float = 1.0
    inflation: float = 1.0

    def start(self, z: jax.Array) -> Memory:
        return self.solver.start(z)

    def step(self, keys: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        split = jax.vmap(jax.random.split)(keys)
        lifted = time_at(path, log_snr(path, t) - 2.0 * jnp.log1p(self.amount))
        higher = jnp.where((self.amount > 0) & (t >= self.low) & (t <= self.high), jnp.maximum(lifted, t), t)
        ratio = path.alpha(higher) / path.alpha(t)
        added = jnp.where(higher > t, path.sigma(higher) ** 2 - (ratio * path.sigma(t)) ** 2, 0.0)
        z = jnp.where(higher > t, ratio, 1.0) * z + self.inflation * jnp.sqrt(added) * normal(split[:, 0], z)
        return self.solver.step(split[:, 1], model, path, z, memory, higher, s)


def check_order(order: int, highest: int) -> None:
    """Raises UserError for an order outside of 1 to `highest`."""
    if not 1 <= order <= highest:
        raise UserError(f'the order {order} is not between 1 and {highest}')
