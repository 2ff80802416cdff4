"""Consistency models (arXiv:2303.01469; arXiv:2310.14189): from anywhere on the flow to where it came from.

    (1)  f(z_t, t) = z_0 for all t on one trajectory
    (2)  f(z_t, t) = f(z_s, s) in training, s < t neighbours with the same data and the same noise

Training with (2) has no teacher; its bias is first order in the distance of the neighbours.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.diffusion.gaussian.paths import Path, log_snr, time_at
from vqdit.diffusion.gaussian.predictions import spread
from vqdit.diffusion.samplers.solvers import Memory, Model, normal
from vqdit.errors import UserError

Consistency = Callable[[jax.Array, jax.Array], jax.Array]
"""`(z [B, ...], t [B]) -> z_0 [B, ...]`."""


def bounded(network: Consistency, path: Path, deviation: float = 0.5, smallest: float = 0.002) -> Consistency:
    """A network as a consistency function that is the identity at the noise level sigma / alpha = `smallest`
    (arXiv:2303.01469, appendix C), for data of a standard deviation."""
    def function(z: jax.Array, t: jax.Array) -> jax.Array:
        alpha = path.alpha(spread(t, z))
        ratio = path.sigma(spread(t, z)) / alpha
        beyond = ratio - smallest
        skip = deviation**2 / (beyond**2 + deviation**2)
        size = deviation * beyond / jnp.sqrt(ratio**2 + deviation**2)
        return skip * z / alpha + size * network(z, t)
    return function


def level_at(path: Path, place: jax.Array, smallest: float = 0.002, largest: float = 80.0,
             power: float = 7.0) -> jax.Array:
    """The noise level [...] at `place [...]`, which goes from 0 where sigma / alpha is `smallest` to 1 where it is
    `largest`, with equal steps of (sigma / alpha)^(1 / power) (arXiv:2206.00364, equation (5))."""
    low, high = smallest ** (1 / power), largest ** (1 / power)
    return time_at(path, -2.0 * power * jnp.log(low + place * (high - low)))


def place_of(path: Path, t: jax.Array, smallest: float = 0.002, largest: float = 80.0, power: float = 7.0) -> jax.Array:
    """The inverse of `level_at`, below 0 and above 1 beyond its ends."""
    low, high = smallest ** (1 / power), largest ** (1 / power)
    return (jnp.exp(-0.5 / power * log_snr(path, t)) - low) / (high - low)


def consistency_levels(path: Path, steps: int, smallest: float = 0.002, largest: float = 80.0,
                       power: float = 7.0) -> jax.Array:
    """`steps + 1` rising noise levels, at equal places."""
    return level_at(path, jnp.linspace(0.0, 1.0, steps + 1), smallest, largest, power)


Levels = int | jax.Array | Callable[[jax.Array], jax.Array]
"""How many neighbours agree: a number, or a pure function of how many training steps were taken before."""


def doubled(total: int, first: int = 10, last: int = 1280) -> Levels:
    """N(k) - 1 of the training steps k of `total` (arXiv:2310.14189, section 3.4): `first`, doubled at even intervals
    up to `last`, so that the bias shrinks as the variance is borne.

        (3)  N(k) = min(first 2^floor(k / K'), last) + 1,   K' = floor(total / (log2 floor(last / first) + 1))

    Raises UserError unless 2 <= first <= last.
    """
    if not 2 <= first <= last:
        raise UserError(f'levels that double from {first} to {last} must start at 2 or more, and not above their end')
    interval = max(int(total / (math.log2(last // first) + 1)), 1)
    most = math.ceil(math.log2(last / first))
    return lambda step: jnp.minimum(first * 2 ** jnp.minimum(step // interval, most), last)


LEVELS: dict[str, Callable[..., Levels]] = {'doubled': doubled}
"""By name, each with its own settings."""


def pseudo_huber(a: jax.Array, b: jax.Array, offset: float = 5.4e-4) -> jax.Array:
    """sqrt(|a - b|^2 + c^2) - c, [B], c = `offset` times the root of the size (arXiv:2310.14189, section 3.3)."""
    axes = tuple(range(1, a.ndim))
    c = offset * np.sqrt(a[0].size)
    return jnp.sqrt(jnp.sum((a - b) ** 2, axis=axes) + c**2) - c


def consistency_loss(function: Consistency, path: Path, clean: jax.Array, noise: jax.Array, t: jax.Array, s: jax.Array,
                     distance: Callable[[jax.Array, jax.Array], jax.Array] = pseudo_huber) -> jax.Array:
    """The distance [B] of the two sides of (2) at `s [B]` < `t [B]`; no gradient flows into that at s.

    The published weight is 1 / (t - s). Dropout, if any, must be the same in both calls.
    """
    noisy = lambda t: path.alpha(spread(t, clean)) * clean + path.sigma(spread(t, clean)) * noise
    return distance(function(noisy(t), t), jax.lax.stop_gradient(function(noisy(s), s)))


def sample_by_consistency(function: Consistency, path: Path, z: jax.Array, grid: jax.Array,
                          keys: jax.Array) -> jax.Array:
    """Clean vectors [B, ...] from `z` at `grid[0]`: one evaluation for each of the falling levels `grid [steps]`, with
    new noise in between (arXiv:2303.01469, algorithm 1). `keys [B]`, one for every sample."""
    each = lambda t: jnp.broadcast_to(t, z.shape[:1])

    def body(clean, step):
        index, t = step
        noise = normal(jax.vmap(lambda key: jax.random.fold_in(key, index))(keys), clean)
        return function(path.alpha(t) * clean + path.sigma(t) * noise, each(t)), None

    return jax.lax.scan(body, function(z, each(grid[0])), (jnp.arange(len(grid) - 1), grid[1:]))[0]


@dataclass(frozen=True)
class Renoised:
    """Algorithm 1 as a solver: every step goes to the clean vectors, and from there to s with new noise."""

    def start(self, z: jax.Array) -> Memory:
        del z

    def step(self, keys: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        return path.alpha(s) * model(z, t) + path.sigma(s) * normal(keys, z), memory
