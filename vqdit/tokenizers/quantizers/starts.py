"""What a codebook holds before it has learned anything: vectors [K, D], and how many tokens each stands for [K]."""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.metrics import Metric
from vqdit.tokenizers.quantizers.nearest import nearest_code

Codes = tuple[jax.Array, jax.Array]


class Start(Protocol):
    """`(flat [T, D], weights [T], num_codes, metric, key) -> (vectors [K, D], counts [K])` of the first batch."""

    def __call__(self, flat: jax.Array, weights: jax.Array, num_codes: int, metric: Metric,
                 key: jax.Array) -> Codes: ...


@dataclass(frozen=True)
class SampleStart:
    """Tokens of the first batch. Raises UserError when it has fewer of them than there are codes."""

    def __call__(self, flat: jax.Array, weights: jax.Array, num_codes: int, metric: Metric, key: jax.Array) -> Codes:
        _check_enough(flat, num_codes)
        vectors = metric.values(draw_tokens(flat, weights, num_codes, key))
        return vectors, jnp.full(num_codes, weights.sum() / num_codes)


@dataclass(frozen=True)
class KMeansStart:
    """Centres of clusters of the first batch, by Lloyd's algorithm from drawn tokens (Lloyd 1982).

    A cluster that ends empty keeps its drawn token, but stands for so little that it is soon given to another.
    """

    iterations: int = 10

    def __call__(self, flat: jax.Array, weights: jax.Array, num_codes: int, metric: Metric, key: jax.Array) -> Codes:
        _check_enough(flat, num_codes)
        drawn = metric.values(draw_tokens(flat, weights, num_codes, key))

        def move(_, centres: jax.Array) -> jax.Array:
            counts, sums = tally(flat, nearest_code(metric.keys(flat), metric.keys(centres)), weights, num_codes)
            return jnp.where(counts[:, None] > 0, metric.values(sums / jnp.maximum(counts, 1.0)[:, None]), centres)

        centres = jax.lax.fori_loop(0, self.iterations, move, drawn)
        counts, _ = tally(flat, nearest_code(metric.keys(flat), metric.keys(centres)), weights, num_codes)
        return centres, jnp.maximum(counts, 1e-2 * weights.sum() / num_codes)


@dataclass(frozen=True)
class NormalStart:
    """Normal vectors of standard deviation `scale`, whatever the data; for batches smaller than the codebook."""

    scale: float = 1.0

    def __call__(self, flat: jax.Array, weights: jax.Array, num_codes: int, metric: Metric, key: jax.Array) -> Codes:
        vectors = metric.values(self.scale * jax.random.normal(key, (num_codes, flat.shape[1])))
        return vectors, jnp.full(num_codes, weights.sum() / num_codes)


STARTS = {'sample': SampleStart, 'k_means': KMeansStart, 'normal': NormalStart}


def draw_tokens(flat: jax.Array, weights: jax.Array, count: int, key: jax.Array) -> jax.Array:
    """`count` rows of `flat [T, D]` among those of `weights [T]` above 0, every one once before any comes again.

    A jitter within a thousandth of the batch's root mean square keeps those that come again apart.
    """
    visible = weights > 0
    number = jnp.maximum(visible.sum(), 1)
    draws = jax.random.uniform(key, (1 + count * (1 + flat.shape[1]),))
    # One of every `stride` tokens, from a random place on: no sort, which is slow on many devices, and no steps of one
    # length, which would fall on the same place of every item's grid.
    stride = jnp.maximum(number // count, 1)
    first = (draws[0] * number).astype(jnp.int32)
    within = (draws[1:1 + count] * stride).astype(jnp.int32)
    places = (first + jnp.arange(count) * stride + within) % number
    rows = jnp.searchsorted(jnp.cumsum(visible), places, side='right')
    size = jnp.sqrt(jnp.sum(jnp.where(visible[:, None], flat, 0.0) ** 2) / (number * flat.shape[1]))
    jitter = 2 * draws[1 + count:].reshape(count, flat.shape[1]) - 1
    return flat[rows] + 1e-3 * size * jitter


def tally(flat: jax.Array, codes: jax.Array, weights: jax.Array, num_codes: int) -> Codes:
    """How many tokens each code has, fp32 [K], and their sums [K, D]; `flat [T, D]`, `codes`, `weights` [T]."""
    counts = jax.ops.segment_sum(weights, codes, num_codes)
    # A select, not a product: what is hidden may be infinite.
    seen = jnp.where(weights[:, None] > 0, flat, 0.0)
    return counts, jax.ops.segment_sum(seen, codes, num_codes)


def _check_enough(flat: jax.Array, num_codes: int) -> None:
    if flat.shape[0] < num_codes:
        raise UserError(f'{flat.shape[0]} tokens in a training step cannot start a codebook of num_codes={num_codes}; '
                        'take a larger batch, fewer codes, or start="normal"')
