"""Fingerprints of trees of arrays: two exact sums of their words, the same on any sharding.

Orbax keeps no checksum of array data, so that a flipped bit in a file would be loaded without a word. With
w_i the bits of element i of the global array in row-major order, cut into words of at most 32 bits,

    total    = sum_i w_i            mod 2^32
    weighted = sum_i w_i (2 i + 1)  mod 2^32

Every change of a single word changes both. The sums of shards add up, so they are taken from the host copies
that a save makes anyway: no compilation for each shape and no collective operation.
"""

import concurrent.futures
import hashlib
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

MODULUS = 2**32


class Summary(NamedTuple):
    """What is known of one leaf: dtype name, global shape, the two sums, and if all values are finite."""

    dtype: str
    shape: tuple[int, ...]
    total: int
    weighted: int
    finite: bool


def summarize(tree: Any) -> dict[str, Summary]:
    """The Summary of every leaf by its path, such as `params/head/kernel`.

    Leaves are jax or numpy arrays; anything else, typed random keys too, is a TypeError that names the path.
    """
    leaves = leaves_by_path(tree)
    blocks = [(number, *block) for number, leaf in enumerate(leaves.values()) for block in _blocks(leaf)]
    for _, data, _, _ in blocks:
        if isinstance(data, jax.Array):
            data.copy_to_host_async()
    sums = np.zeros((len(leaves), 3), np.int64)
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
        for block, block_sums in zip(blocks, pool.map(lambda block: _block_sums(*block[1:]), blocks)):
            sums[block[0]] += block_sums
    if jax.process_count() > 1:
        words = (sums % MODULUS).astype(np.uint32)
        sums = np.asarray(multihost_utils.process_allgather(words)).astype(np.int64).sum(axis=0)
    return {
        path: Summary(str(leaf.dtype), tuple(leaf.shape), total % MODULUS, weighted % MODULUS, not broken)
        for (path, leaf), (total, weighted, broken) in zip(leaves.items(), sums.tolist())
    }


def fingerprint(tree: Any) -> dict[str, tuple[int, int]]:
    """(total, weighted) of every leaf by its path; equal trees agree on any number of devices."""
    return {path: (summary.total, summary.weighted) for path, summary in summarize(tree).items()}


def digest(tree: Any) -> str:
    """A name of 16 hex digits for the paths, dtypes, shapes and values of a tree."""
    rows = sorted([path, *summary[:4]] for path, summary in summarize(tree).items())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """{path: leaf} of a tree of (abstract or real) arrays; a TypeError names a leaf that is none."""
    leaves: dict[str, Any] = {}
    stored_names = set()
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = jax.tree_util.keystr(keys, simple=True, separator='/') or 'value'
        if not isinstance(leaf, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
            raise TypeError(f'{path} is {type(leaf).__name__}; only arrays can be kept: use jnp.asarray')
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise TypeError(f'{path} is a typed random key; keep the seed, or jax.random.key_data of it')
        if path.replace('.', '/') in stored_names:
            raise TypeError(f'two leaves have the path {path}; rename one')
        stored_names.add(path.replace('.', '/'))
        leaves[path] = leaf
    return leaves


def _blocks(leaf: jax.Array | np.ndarray) -> list[tuple[Any, tuple[int, ...], tuple[int, ...]]]:
    """(data, start of every axis, global shape) of this process's parts of a leaf, each part once."""
    if jax.process_index() > 0 and (isinstance(leaf, np.ndarray) or leaf.is_fully_addressable):
        return []  # Every process has the whole of it: the first one counts it.
    if isinstance(leaf, np.ndarray):
        return [(leaf, (0,) * leaf.ndim, leaf.shape)]
    shards = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
    return [(shard.data, tuple(part.start or 0 for part in shard.index), leaf.shape) for shard in shards]


def _block_sums(data: Any, starts: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """[total, weighted, not finite] of one block.

    The element index is sum_a stride_a * index_a, so that the weighted sum needs one product with a vector
    for each axis, from the last on, and every product but the first is on an array already summed.
    """
    block = np.ascontiguousarray(data)
    words = block.view(f'u{min(block.itemsize, 4)}').astype(np.uint32, copy=False)
    width = max(block.itemsize // 4, 1)
    starts, shape = (*starts[:-1], (starts or (0,))[-1] * width), (*shape[:-1], (shape or (1,))[-1] * width)
    total, moment, stride = words, np.zeros((*words.shape[:-1], 1), np.uint32), 1
    with np.errstate(over='ignore'):
        for start, length in zip(reversed(starts), reversed(shape)):
            index = np.arange(start, start + total.shape[-1], dtype=np.uint32) * np.uint32(stride % MODULUS)
            moment = total @ index + moment.sum(axis=-1, dtype=np.uint32)
            total = total.sum(axis=-1, dtype=np.uint32)
            stride *= length
    broken = jnp.issubdtype(block.dtype, jnp.inexact) and not np.isfinite(block).all()
    return np.array([int(total), int(total) + 2 * int(moment), int(broken)], np.int64)
