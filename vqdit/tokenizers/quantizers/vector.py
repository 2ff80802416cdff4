"""Vector quantization with an exponential-moving-average codebook (van den Oord et al. 2017, appendix A.1).

Against collapse: low-dimensional codes on the unit sphere (ViT-VQGAN, arXiv:2110.04627), initialisation from the
first batch, and replacement of codes whose share of the tokens falls below a fraction of the uniform share (Mimi,
arXiv:2410.00037): relative, so that it means the same at every batch size.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.base import Quantized, check_latents, straight_through, usage_metrics


def normalise(vectors: jax.Array) -> jax.Array:
    """Unit length along the last axis, fp32; a zero vector stays zero."""
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.sum(vectors**2, axis=-1, keepdims=True), 1e-12))


def nearest_code(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """Index int32 [T] of the Euclidean nearest row of `codebook [K, D]` to each of `vectors [T, D]`.

    The lowest index wins a tie.
    """
    products = jnp.matmul(vectors, codebook.T, precision=jax.lax.Precision.HIGHEST)
    lengths = jnp.sum(codebook**2, axis=-1)
    return jnp.argmin(lengths[None] - 2 * products, axis=-1).astype(jnp.int32)


class VectorQuantizer(nn.Module):
    """EMA codebook of `num_codes` unit vectors of `dimension`.

    Attributes:
        decay: of the moving averages of counts and sums.
        commitment: weight of the loss that draws the encoder to its code (beta of the paper, eq. 3).
        dead_share: a code is replaced when its averaged count is below this fraction of the uniform share.

    Raises UserError for fewer than 2 codes. `key` is needed when training: it draws the initial and revived codes.
    """

    num_codes: int = 1024
    dimension: int = 8
    decay: float = 0.99
    commitment: float = 0.25
    dead_share: float = 0.1

    def __post_init__(self):
        if self.num_codes < 2:
            raise UserError(f'num_codes is {self.num_codes}; a codebook needs at least 2')
        super().__post_init__()

    @property
    def levels(self) -> int:
        return 1

    @property
    def radices(self) -> tuple[int, ...]:
        return ()

    @property
    def bits_per_token(self) -> float:
        return math.log2(self.num_codes)

    def setup(self):
        shape = (self.num_codes, self.dimension)
        zeros = jnp.zeros
        self.sums = self.variable('codebook', 'sums', zeros, shape, jnp.float32)
        self.counts = self.variable('codebook', 'counts', zeros, (self.num_codes,), jnp.float32)
        self.initialised = self.variable('codebook', 'initialised', zeros, (), jnp.bool_)

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        z = normalise(check_latents(z, self.dimension))
        flat = z.reshape(-1, self.dimension)
        weights = jnp.ones(flat.shape[0], jnp.float32) if mask is None else mask.reshape(-1).astype(jnp.float32)
        if train:
            assert key is not None, 'training a VectorQuantizer needs a key'
            self._initialise(jax.lax.stop_gradient(flat), weights, jax.random.fold_in(key, 0))
        codes = nearest_code(jax.lax.stop_gradient(flat), self._codebook())
        quantized = self._codebook()[codes].reshape(z.shape)
        metrics = usage_metrics(codes, self.num_codes, None if mask is None else mask.reshape(-1))
        if train and key is not None:
            metrics['revived'] = self._update(jax.lax.stop_gradient(flat), codes, weights, jax.random.fold_in(key, 1))
        error = jnp.sum((z - jax.lax.stop_gradient(quantized)) ** 2, axis=-1).reshape(-1)
        loss = self.commitment * jnp.sum(error * weights) / jnp.maximum(weights.sum(), 1.0)
        return Quantized(straight_through(z, quantized), codes.reshape(*z.shape[:-1], 1), loss, metrics)

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Code vectors fp32 [..., dimension] of codes int32 [..., 1]."""
        return self._codebook()[codes[..., 0]]

    def _codebook(self) -> jax.Array:
        return normalise(self.sums.value)

    def _initialise(self, flat: jax.Array, weights: jax.Array, key: jax.Array) -> None:
        """Fills the codebook with tokens of the first batch, each code with a full uniform share."""
        drawn = _draw(flat, weights, self.num_codes, key)
        share = weights.sum() / self.num_codes
        done = self.initialised.value
        self.sums.value = jnp.where(done, self.sums.value, drawn * share)
        self.counts.value = jnp.where(done, self.counts.value, share)
        self.initialised.value = jnp.ones((), jnp.bool_)

    def _update(self, flat: jax.Array, codes: jax.Array, weights: jax.Array, key: jax.Array) -> jax.Array:
        """Moves counts and sums, then replaces dead codes; returns how many were replaced."""
        counts = jax.ops.segment_sum(weights, codes, self.num_codes)
        sums = jax.ops.segment_sum(flat * weights[:, None], codes, self.num_codes)
        counts = self.decay * self.counts.value + (1 - self.decay) * counts
        sums = self.decay * self.sums.value + (1 - self.decay) * sums
        share = counts.sum() / self.num_codes
        dead = counts < self.dead_share * share
        drawn = _draw(flat, weights, self.num_codes, key)
        self.counts.value = jnp.where(dead, share, counts)
        self.sums.value = jnp.where(dead[:, None], drawn * share, sums)
        return jnp.sum(dead.astype(jnp.float32))


def _draw(flat: jax.Array, weights: jax.Array, count: int, key: jax.Array) -> jax.Array:
    """`count` rows of `flat [T, D]` drawn in proportion to `weights [T]`, with a little jitter against duplicates."""
    choice, jitter = jax.random.split(key)
    shares = jnp.cumsum(weights)
    points = jax.random.uniform(choice, (count,)) * shares[-1]
    rows = jnp.minimum(jnp.searchsorted(shares, points, side='right'), flat.shape[0] - 1)
    return normalise(flat[rows] + 1e-3 * jax.random.normal(jitter, (count, flat.shape[-1])))
