"""How codes are replaced by other codes: symmetric Markov kernels M(t|s) whose limit is the uniform distribution.

With alpha a schedule and G a symmetric matrix of rates, M(t|s) = exp(G log(alpha(s) / alpha(t))); then

    (1)  M(t|r) = M(s|r) M(t|s)  for r <= s <= t, and  d/dt M(t|0) = M(t|0) G rho(t),  rho(t) = -alpha'(t) / alpha(t)
    (2)  q(z_s | z_t, x) = M(s|0)[x, z_s] M(t|s)[z_s, z_t] / M(t|0)[x, z_t]

Weights over codes are row vectors [..., K], noise levels [...].
"""

from dataclasses import dataclass, field
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.diffusion.schedules import Linear, Schedule, kept_between
from vqdit.errors import UserError


class Kernel(Protocol):
    """The replacement of codes by codes."""

    def kept(self, t: jax.Array) -> jax.Array:
        """The share alpha(t) of the signal that is left at noise level t."""
        ...

    def spread(self, weights: jax.Array, s: jax.Array, t: jax.Array) -> jax.Array:
        """weights M(t|s), [..., K]."""
        ...

    def flow(self, weights: jax.Array, t: jax.Array) -> jax.Array:
        """weights G rho(t) of (1), [..., K]."""
        ...

    def draw(self, key: jax.Array, codes: jax.Array, s: jax.Array, t: jax.Array, num_codes: jax.Array) -> jax.Array:
        """Codes drawn from the rows of M(t|s) that belong to `codes`, of which each can take `num_codes` values."""
        ...

    def bridge(self, key: jax.Array, codes: jax.Array, noisy: jax.Array, s: jax.Array, t: jax.Array,
               num_codes: jax.Array) -> jax.Array:
        """Codes drawn from (2) with x = `codes`, z_t = `noisy`."""
        ...


def _rate(schedule: Schedule, t: jax.Array) -> jax.Array:
    return -schedule.slope(t) / schedule.alpha(t)


@dataclass(frozen=True)
class Uniform:
    """A code is kept with probability alpha, else drawn anew from all codes (D3PM, arXiv:2107.03006)."""

    schedule: Schedule = field(default_factory=Linear)

    def kept(self, t: jax.Array) -> jax.Array:
        return self.schedule.alpha(t)

    def spread(self, weights: jax.Array, s: jax.Array, t: jax.Array) -> jax.Array:
        kept = kept_between(self.schedule, s, t)[..., None]
        return kept * weights + (1.0 - kept) * jnp.mean(weights, axis=-1, keepdims=True)

    def flow(self, weights: jax.Array, t: jax.Array) -> jax.Array:
        return _rate(self.schedule, t)[..., None] * (jnp.mean(weights, axis=-1, keepdims=True) - weights)

    def draw(self, key: jax.Array, codes: jax.Array, s: jax.Array, t: jax.Array, num_codes: jax.Array) -> jax.Array:
        keep, choose = jax.random.split(key)
        # The uniform draw is in [0, 1): noise level 0 keeps every code, level 1 none.
        kept = jax.random.uniform(keep, codes.shape) < kept_between(self.schedule, s, t)
        return jnp.where(kept, codes, _anything(choose, num_codes, codes.shape))

    def bridge(self, key: jax.Array, codes: jax.Array, noisy: jax.Array, s: jax.Array, t: jax.Array,
               num_codes: jax.Array) -> jax.Array:
        """(2) in three routes: stay at z_t, become x, or become anything; no vector over the codes is needed."""
        early, late = self.kept(s), kept_between(self.schedule, s, t)
        stay = late * (early * (codes == noisy) * num_codes + 1.0 - early)
        become, anything = (1.0 - late) * early, (1.0 - late) * (1.0 - early)
        route, choose = jax.random.split(key)
        place = jax.random.uniform(route, codes.shape) * (stay + become + anything)
        other = jnp.where(place < stay + become, codes, _anything(choose, num_codes, codes.shape))
        return jnp.where(place <= stay, noisy, other)


def _anything(key: jax.Array, num_codes: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.randint(key, shape, 0, jnp.broadcast_to(num_codes, shape))


@dataclass(frozen=True, eq=False)
class CodeDistance:
    """Codes turn into near ones first: G from the distances in a frozen codebook (after D3PM, appendix A.2.5).

    `values [K]` and `vectors [K, K]` are the eigenvalues and eigenvectors of -G. G is scaled so that its slowest mode
    decays as alpha: with all distances equal this is `Uniform`.
    """

    values: np.ndarray
    vectors: np.ndarray
    schedule: Schedule = field(default_factory=Linear)

    @classmethod
    def of(cls, codebook: np.ndarray, schedule: Schedule | None = None, width: float = 1.0) -> 'CodeDistance':
        """The kernel of `codebook [K, C]`: rates exp(-distance^2 / (2 (width median)^2)), `median` of the nearest.

        Raises UserError for fewer than two codes or a width that is not positive.
        """
        if len(codebook) < 2 or width <= 0:
            raise UserError(f'a code-distance kernel needs 2 codes and a positive width, not {len(codebook)}, {width}')
        squares = _squared_distances(np.asarray(codebook, np.float64))
        near = np.median(np.min(squares + np.diag(np.full(len(squares), np.inf)), axis=1))
        rates = np.exp(-squares / (2 * width**2 * max(near, 1e-30)))
        # A touch of every other code keeps far clusters connected, so that all modes decay.
        rates = rates + 1e-3 * rates.mean()
        np.fill_diagonal(rates, 0.0)
        values, vectors = np.linalg.eigh(np.diag(rates.sum(axis=1)) - rates)
        values[0] = 0.0
        return cls(values / values[1], vectors, schedule or Linear())

    def kept(self, t: jax.Array) -> jax.Array:
        return self.schedule.alpha(t)

    def spread(self, weights: jax.Array, s: jax.Array, t: jax.Array) -> jax.Array:
        kept = kept_between(self.schedule, s, t)[..., None]
        spread = self._in_modes(weights, kept ** self._powers(weights))
        # The modes sum to the identity but for rounding, which must not touch a clean code.
        return jnp.where(kept == 1, weights, jnp.maximum(spread, 0.0))

    def flow(self, weights: jax.Array, t: jax.Array) -> jax.Array:
        return self._in_modes(weights, -_rate(self.schedule, t)[..., None] * self._powers(weights))

    def _powers(self, weights: jax.Array) -> jax.Array:
        return jnp.asarray(self.values, weights.dtype).reshape((1,) * (weights.ndim - 1) + (-1,))

    def _in_modes(self, weights: jax.Array, factors: jax.Array) -> jax.Array:
        vectors, highest = jnp.asarray(self.vectors, weights.dtype), jax.lax.Precision.HIGHEST
        return jnp.dot(jnp.dot(weights, vectors, precision=highest) * factors, vectors.T, precision=highest)

    def draw(self, key: jax.Array, codes: jax.Array, s: jax.Array, t: jax.Array, num_codes: jax.Array) -> jax.Array:
        del num_codes
        row = self.spread(jax.nn.one_hot(codes, len(self.values)), s, t)
        return jax.random.categorical(key, jnp.log(row), mode='high').astype(codes.dtype)

    def bridge(self, key: jax.Array, codes: jax.Array, noisy: jax.Array, s: jax.Array, t: jax.Array,
               num_codes: jax.Array) -> jax.Array:
        del num_codes
        start, end = (jax.nn.one_hot(x, len(self.values)) for x in (codes, noisy))
        chances = self.spread(start, jnp.zeros_like(s), s) * self.spread(end, s, t)
        drawn = jax.random.categorical(key, jnp.log(chances), mode='high').astype(codes.dtype)
        return jnp.where(jnp.sum(chances, axis=-1) > 0, drawn, noisy)


def _squared_distances(book: np.ndarray) -> np.ndarray:
    """Between all pairs of rows, [K, K], without an array of all pairs of vectors."""
    centred = book - book.mean(axis=0)
    norms = np.sum(centred**2, axis=1)
    squares = norms[:, None] + norms[None] - 2 * centred @ centred.T
    np.fill_diagonal(squares, 0.0)
    return np.maximum(squares, 0.0)
