"""How a codebook learns: as moving averages of its tokens, or by gradient.

Both follow how many tokens each code gets, and give a code whose share falls below a fraction of the uniform share to
a token of the batch (Mimi, arXiv:2410.00037): a relative threshold means the same at every batch size. The new code
starts with a full uniform share, in counts and sums alike, so that the next steps do not undo it.
"""

from collections.abc import Callable
from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.base import HIGHEST, mean_square
from vqdit.tokenizers.quantizers.metrics import Metric, normalise
from vqdit.tokenizers.quantizers.starts import Start, draw_tokens, tally

Decay = float | Callable[[jax.Array], jax.Array]
"""Of moving averages: a number, or a function of the number of steps taken before."""


class Codebook(Protocol):
    """The table of a vector quantizer. `begin` and `observe` change its state and are called in training alone."""

    def vectors(self) -> jax.Array: ...

    def begin(self, flat: jax.Array, weights: jax.Array, key: jax.Array) -> None: ...

    def observe(self, flat: jax.Array, codes: jax.Array, weights: jax.Array,
                key: jax.Array) -> dict[str, jax.Array]: ...

    def loss(self, z: jax.Array, quantized: jax.Array, weights: jax.Array) -> jax.Array: ...


class TrackedCodebook(nn.Module):
    """What all codebooks do: follow the counts, start, and replace dead codes. Kinds say how they `move` and `put`."""

    num_codes: int
    dimension: int
    decay: Decay
    dead_share: float
    start: Start
    metric: Metric

    def setup(self):
        self.counts = self.variable('codebook', 'counts', jnp.zeros, (self.num_codes,), jnp.float32)
        check_state('counts', self.counts.value, (self.num_codes,))
        self.initialised = self.variable('codebook', 'initialised', jnp.zeros, (), jnp.bool_)
        self.steps = self.variable('codebook', 'steps', jnp.zeros, (), jnp.int32)

    def begin(self, flat: jax.Array, weights: jax.Array, key: jax.Array) -> None:
        """Fills the codebook from the first batch in which a token counts."""
        due = ~self.initialised.value & (weights.sum() > 0)
        nothing = jnp.zeros((self.num_codes, self.dimension)), jnp.zeros(self.num_codes)
        vectors, counts = jax.lax.cond(
            due, lambda: self.start(flat, weights, self.num_codes, self.metric, key), lambda: nothing)
        self._set(jnp.broadcast_to(due, (self.num_codes,)), vectors, counts)
        self.initialised.value = self.initialised.value | due

    def observe(self, flat: jax.Array, codes: jax.Array, weights: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
        """Moves the averages by the tokens of each code, then replaces dead codes; nothing, where no token counts."""
        counts, sums = tally(flat, codes, weights, self.num_codes)
        some = weights.sum() > 0
        decay = jnp.where(some, self.decay(self.steps.value) if callable(self.decay) else self.decay, 1.0)
        self.counts.value = decay * self.counts.value + (1 - decay) * counts
        self._move(decay, sums)
        share = self.counts.value.sum() / self.num_codes
        dead = some & (self.counts.value < self.dead_share * share)
        drawn = self.metric.values(draw_tokens(flat, weights, self.num_codes, key))
        self._set(dead, drawn, jnp.broadcast_to(share, dead.shape))
        self.steps.value = self.steps.value + some
        return {'revived': jnp.sum(dead.astype(jnp.float32))}

    def _set(self, which: jax.Array, vectors: jax.Array, counts: jax.Array) -> None:
        self.counts.value = jnp.where(which, counts, self.counts.value)
        self._put(which, vectors, counts)

    def _move(self, decay: jax.Array, sums: jax.Array) -> None:
        """Follows the sums [K, D] of the tokens of each code."""
        raise NotImplementedError

    def _put(self, which: jax.Array, vectors: jax.Array, counts: jax.Array) -> None:
        """Sets codes `which [K]` to vectors [K, D] that stand for counts [K] of tokens."""
        raise NotImplementedError


class MovingAverageCodebook(TrackedCodebook):
    """Codes are the averages of their tokens (van den Oord et al. 2017, arXiv:1711.00937, appendix A.1).

    n <- decay n + (1 - decay) count, s <- decay s + (1 - decay) sum, and a code is s over n, with n smoothed after
    Laplace. The codes are state too, so that every program looks up the same bits.
    """

    smoothing: float = 1e-5

    def setup(self):
        super().setup()
        shape = (self.num_codes, self.dimension)
        self.sums = self.variable('codebook', 'sums', jnp.zeros, shape, jnp.float32)
        self.codes = self.variable('codebook', 'codes', jnp.zeros, shape, jnp.float32)
        check_state('codes', self.codes.value, shape)

    def vectors(self) -> jax.Array:
        """fp32 [K, D]."""
        return self.codes.value

    def loss(self, z: jax.Array, quantized: jax.Array, weights: jax.Array) -> jax.Array:
        return jnp.zeros((), jnp.float32)

    def _move(self, decay: jax.Array, sums: jax.Array) -> None:
        self.sums.value = decay * self.sums.value + (1 - decay) * sums
        total = self.counts.value.sum()
        smoothed = (self.counts.value + self.smoothing) / (total + self.num_codes * self.smoothing) * total
        moved = self.metric.values(self.sums.value / jnp.maximum(smoothed, 1e-12)[:, None])
        self.codes.value = jnp.where(decay < 1, moved, self.codes.value)

    def _put(self, which: jax.Array, vectors: jax.Array, counts: jax.Array) -> None:
        self.sums.value = jnp.where(which[:, None], vectors * counts[:, None], self.sums.value)
        self.codes.value = jnp.where(which[:, None], vectors, self.codes.value)


class GradientCodebook(TrackedCodebook):
    """A parameter that is drawn to its tokens by the loss (arXiv:1711.00937, eq. 3, second term).

    A code is the parameter plus a shift. The optimizer alone changes the parameter; start and dead codes change the
    shift, which is state.

    Attributes:
        weight: of the mean square of code less token.
        orthogonality: weight of the mean square of the cosines between codes (arXiv:2112.00384, eq. 2).
    """

    weight: float = 1.0
    orthogonality: float = 0.0

    def setup(self):
        super().setup()
        shape = (self.num_codes, self.dimension)
        self.parameter = self.param('codes', nn.initializers.zeros, shape)
        self.shift = self.variable('codebook', 'shift', jnp.zeros, shape, jnp.float32)

    def vectors(self) -> jax.Array:
        """fp32 [K, D]."""
        return self.metric.values(self.parameter.astype(jnp.float32) + self.shift.value)

    def loss(self, z: jax.Array, quantized: jax.Array, weights: jax.Array) -> jax.Array:
        value = self.weight * mean_square(quantized, jax.lax.stop_gradient(z), weights)
        return value + self.orthogonality * orthogonality(self.vectors()) if self.orthogonality else value

    def _move(self, decay: jax.Array, sums: jax.Array) -> None:
        pass

    def _put(self, which: jax.Array, vectors: jax.Array, counts: jax.Array) -> None:
        placed = vectors - jax.lax.stop_gradient(self.parameter)
        self.shift.value = jnp.where(which[:, None], placed, self.shift.value)


CODEBOOKS = {'moving_average': MovingAverageCodebook, 'gradient': GradientCodebook}


def check_state(name: str, value: jax.Array, shape: tuple[int, ...]) -> None:
    """Raises UserError for state that is not of `shape`, which is that of another quantizer."""
    if value.shape != shape:
        raise UserError(f'the codebook state "{name}" has shape {value.shape}, but this quantizer has {shape}; '
                        'it was made by another quantizer')


def orthogonality(codebook: jax.Array) -> jax.Array:
    """Mean square of the cosines between different codes, over K^2; `codebook [K, D]`."""
    unit = normalise(codebook)
    cosines = jnp.matmul(unit, unit.T, precision=HIGHEST)
    return jnp.mean(cosines**2) - 1 / codebook.shape[0]
