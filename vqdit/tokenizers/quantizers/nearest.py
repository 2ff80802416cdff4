"""The nearest code of a codebook, exactly.

Distances are sums of squared differences in one order of the axes. The expansion |x|^2 - 2 x e + |e|^2 into a matrix
product is faster for wide codes, but cancels where latents lie far from the origin, and it rounds differently with
every shape, so that a token alone, in a batch, or against a part of the codebook could get another code.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

PAIRS = 2**25
"""Pairs of a token and a code that are compared at a time; their distances, if they are held at all, take 128 MiB."""


def nearest_code(vectors: jax.Array, codebook: jax.Array, block: int | None = None) -> jax.Array:
    """Index int32 [T] of the Euclidean nearest row of `codebook [K, D]` to each of `vectors [T, D]`, both fp32.

    The lowest index wins a tie. Codes are compared `block` at a time, as many as memory of constant size holds by
    default; the indices do not depend on it.
    """
    chex.assert_rank([vectors, codebook], 2)
    chex.assert_equal_shape_suffix([vectors, codebook], 1)
    num_codes = codebook.shape[0]
    block = block or max(PAIRS // max(vectors.shape[0], 1), 256)
    if num_codes <= block:
        return _nearest_of(vectors, codebook, 0)[1]
    # Codes beyond the end are infinitely far.
    missing = -num_codes % block
    blocks = jnp.pad(codebook, ((0, missing), (0, 0)), constant_values=jnp.inf).reshape(-1, block, codebook.shape[1])

    def step(best: Candidate, item: tuple[jax.Array, jax.Array]) -> tuple[Candidate, None]:
        return _nearer(best, _nearest_of(vectors, *item)), None

    start = jnp.full(vectors.shape[0], jnp.inf, jnp.float32), jnp.zeros(vectors.shape[0], jnp.int32)
    firsts = block * jnp.arange(len(blocks), dtype=jnp.int32)
    return jax.lax.scan(step, start, (blocks, firsts))[0][1]


def squared_distances(vectors: jax.Array, codebook: jax.Array) -> jax.Array:
    """fp32 [T, K] of `vectors [T, D]` and `codebook [K, D]`."""
    total = jnp.zeros((vectors.shape[0], codebook.shape[0]), jnp.float32)
    for axis in range(vectors.shape[1]):
        total = total + (vectors[:, axis, None] - codebook[None, :, axis]) ** 2
    return total


Candidate = tuple[jax.Array, jax.Array]
"""Distances fp32 [T] and indices int32 [T]."""


def _nearest_of(vectors: jax.Array, codes: jax.Array, first: jax.Array | int) -> Candidate:
    """The nearest of `codes [k, D]`, which are the rows of a codebook from `first` on."""
    distances = squared_distances(vectors, codes)
    indices = jnp.broadcast_to(first + jnp.arange(codes.shape[0], dtype=jnp.int32)[None], distances.shape)
    # One reduction of pairs: nothing of the size [T, k] is written to memory.
    return jax.lax.reduce((distances, indices), (np.float32(np.inf), np.int32(0)), _nearer, (1,))


def _nearer(a: Candidate, b: Candidate) -> Candidate:
    """The smaller distance; of equal ones the smaller index."""
    first = (a[0] < b[0]) | ((a[0] == b[0]) & (a[1] < b[1]))
    return jnp.where(first, a[0], b[0]), jnp.where(first, a[1], b[1])
