"""The protocol of all quantizers.

A quantizer is a Linen module with

    quantizer(z, train=..., mask=..., key=...) -> Quantized     z [..., dimension]
    quantizer.lookup(codes) -> vectors                          codes int32 [..., levels]
    quantizer.num_codes, quantizer.levels, quantizer.radices, quantizer.dimension, quantizer.bits_per_token

Its floating-point work is fp32 with matmul precision HIGHEST whatever the model's dtype, because half-precision
distances and index arithmetic pick wrong codes. Learned state lives in the `codebook` collection.

`mask` bool [...] says which tokens count. The others are quantized as well, so that every shape stays as it is, but
they change no loss, no metric and no state.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError

NO_CODE = -1
"""In place of a code where there is none: a level that was dropped, or latents that are not finite."""

MOST_COUNTED = 2**20

HIGHEST = jax.lax.Precision.HIGHEST


class Quantized(NamedTuple):
    """What a quantizer makes of latents `z [..., dimension]`.

    Attributes:
        vectors: the quantized latents fp32 [..., dimension], carrying the gradient estimator.
        codes: int32 [..., levels].
        loss: fp32 scalar that is added to the reconstruction loss.
        metrics: scalars worth logging.
    """

    vectors: jax.Array
    codes: jax.Array
    loss: jax.Array
    metrics: dict[str, jax.Array]


class Quantizer(Protocol):
    """What the autoencoder and the combinators ask of a quantizer."""

    @property
    def dimension(self) -> int: ...

    @property
    def num_codes(self) -> int: ...

    @property
    def levels(self) -> int: ...

    @property
    def radices(self) -> tuple[int, ...]: ...

    @property
    def bits_per_token(self) -> float: ...

    @property
    def residual_scale(self) -> float | tuple[float, ...]: ...

    def prepare_residual(self, z: jax.Array) -> jax.Array: ...

    def check_scales(self) -> None: ...

    def token_grid(self, grid: Sequence[int]) -> tuple[int, ...]: ...

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized: ...

    def lookup(self, codes: jax.Array) -> jax.Array: ...


class Flat:
    """What quantizers without levels and scales of their own answer when they are asked for them."""

    @property
    def residual_scale(self) -> float | tuple[float, ...]:
        """The size of what a level leaves over, where it is known in advance; the next level is scaled by it."""
        return 1.0

    def prepare_residual(self, z: jax.Array) -> jax.Array:
        """`z [..., dimension]` within the reach of the first of several levels. Raises UserError where none can be."""
        return z

    def check_scales(self) -> None:
        """Raises UserError where several scales cannot share this quantizer."""

    def token_grid(self, grid: Sequence[int]) -> tuple[int, ...]:
        """The grid of the codes of latents on `grid`."""
        return tuple(grid)


class OneCode(Flat):
    """What quantizers that give every position one code share."""

    num_codes: Any

    @property
    def levels(self) -> int:
        return 1

    @property
    def radices(self) -> tuple[int, ...]:
        return ()

    @property
    def bits_per_token(self) -> float:
        return math.log2(self.num_codes)


def check_latents(z: jax.Array, dimension: int, mask: jax.Array | None = None, train: bool = False) -> jax.Array:
    """`z [..., dimension]` as fp32.

    Raises AssertionError, at trace time, for wrong shapes. Raises UserError for values that are not finite and, but in
    training, a mask that hides everything, where they are known, which is outside of `jax.jit`. Inside, such latents
    get `NO_CODE` and spoil the loss, so that the step is skipped, and such a mask leaves a loss of 0.
    """
    chex.assert_axis_dimension(z, -1, dimension, custom_message='the latents are not as wide as the quantizer')
    if mask is not None:
        chex.assert_shape(mask, z.shape[:-1], custom_message='the mask is not of the shape of the tokens')
    if _known(z) and not np.isfinite(np.asarray(z, np.float32)).all():
        raise UserError('the latents hold NaN or infinity; look for an overflow in what came before the quantizer')
    if mask is not None and not train and _known(mask) and mask.size and not np.asarray(mask).any():
        raise UserError('the mask hides every token; a quantizer needs at least one')
    return z.astype(jnp.float32)


def _known(x: jax.Array) -> bool:
    return not isinstance(x, jax.core.Tracer)


def check_num_codes(num_codes: int) -> None:
    """Raises UserError for a codebook that is no codebook."""
    if num_codes < 2:
        raise UserError(f'num_codes is {num_codes}; a codebook needs at least 2')


def known_codes(z: jax.Array, codes: jax.Array) -> jax.Array:
    """`codes int32 [...]`, with `NO_CODE` for latents `z [..., dimension]` that are not finite."""
    return jnp.where(jnp.isfinite(z).all(axis=-1), codes, NO_CODE).astype(jnp.int32)


def along_last(numbers: Sequence[float] | np.ndarray, rank: int) -> np.ndarray:
    """Numbers of the dimensions [D], or one of them all, as [1, ..., D] to go with an array of `rank` axes."""
    return np.asarray(numbers).reshape((1,) * (rank - 1) + (-1,))


def token_weights(shape: Sequence[int], mask: jax.Array | None) -> jax.Array:
    """1 for every token of `shape` that counts and 0 for the others, fp32 [tokens]."""
    return jnp.ones(math.prod(shape), jnp.float32) if mask is None else mask.reshape(-1).astype(jnp.float32)


def mean_square(a: jax.Array, b: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean of (a - b)^2 over the elements of the tokens that count; `a`, `b` [..., D], `weights` [tokens]."""
    per_token = jnp.mean((a - b) ** 2, axis=-1).reshape(-1)
    return weighted_mean(per_token, weights)


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean of `values [tokens]`, 0 where nothing counts."""
    # A select, not a product: what is hidden may be infinite.
    return jnp.sum(jnp.where(weights > 0, values, 0.0) * weights) / jnp.maximum(jnp.sum(weights), 1.0)


def usage_metrics(codes: jax.Array, num_codes: int, mask: jax.Array | None = None) -> dict[str, jax.Array]:
    """Share of the codebook seen in this batch, and the perplexity of the codes, `exp(entropy)`.

    Args:
        codes: int32 [...], one level; `NO_CODE` does not count.
        mask: bool [...], which codes count; all by default.

    There are no such figures of more codes than memory holds counts for.
    """
    if num_codes > MOST_COUNTED:
        return {}
    weights = token_weights(codes.shape, mask) * (codes.reshape(-1) != NO_CODE)
    counts = jax.ops.segment_sum(weights, jnp.maximum(codes.reshape(-1), 0), num_codes)
    probabilities = counts / jnp.maximum(counts.sum(), 1.0)
    entropy = -jnp.sum(probabilities * jnp.log(jnp.maximum(probabilities, 1e-30)))
    return {'usage': jnp.mean(counts > 0), 'perplexity': jnp.exp(entropy)}
