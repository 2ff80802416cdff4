"""How the gradient of a batch comes about: of slices one after the other, and of copies of the model side by side.

Both take a function and give one of the same kind, so that they compose.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vqdit.registry import choose
from vqdit.training.sharding import COPIES, copies_of_the_model, split_by_copy, within_a_copy
from vqdit.training.state import Tree

Gradient = Callable[[Tree, Tree, Any, jax.Array], tuple[tuple[jax.Array, tuple[Tree, Any]], Tree]]
"""`gradient(params, codebook, batch, key) -> ((value, (codebook, metrics)), gradients)`, as `jax.value_and_grad`."""

REDUCE_DTYPES = {'': None, 'float32': jnp.float32, 'bfloat16': jnp.bfloat16}
"""What gradients of copies of the model are summed in, by the name in a config."""


def reduce_dtype(section: ConfigDict) -> jnp.dtype | None:
    """What a training section's `reduce_dtype` names. Raises UserError for an unknown one."""
    return choose(REDUCE_DTYPES, section.get('reduce_dtype', ''), 'diffusion.training.reduce_dtype')


def accumulated(gradient: Gradient, parts: int) -> Gradient:
    """Values and gradients averaged over `parts` equal slices of the batch, taken one after the other."""
    if parts == 1:
        return gradient

    def of_slices(params: Tree, codebook: Tree, batch: Any, key: jax.Array) -> Any:
        def of_one(codebook: Tree, item: Any) -> Any:
            part, number = item
            (value, (codebook, metrics)), grads = gradient(params, codebook, part, jax.random.fold_in(key, number))
            return codebook, (value, metrics, grads)

        def body(carry: Any, item: Any) -> Any:
            codebook, sums = carry
            codebook, terms = of_one(codebook, item)
            return (codebook, jax.tree.map(jnp.add, sums, terms)), None

        # Summed on the way: all slices' gradients side by side would take the memory that slices are to save.
        items = sliced(batch, parts), jnp.arange(parts)
        shapes = jax.eval_shape(lambda items: of_one(codebook, jax.tree.map(lambda x: x[0], items))[1], items)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (codebook, sums), _ = jax.lax.scan(body, (codebook, zeros), items)
        value, metrics, grads = jax.tree.map(lambda x: x / parts, sums)
        return (value, (codebook, metrics)), grads

    return of_slices


def sliced(batch: Any, parts: int) -> Any:
    """Arrays [B, ...] as [parts, B / parts, ...], of which every slice holds every parts-th row."""
    # So each device slices its own rows, and none has to move.
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch)


def joined(slices: jax.Array) -> jax.Array:
    """The inverse of `sliced`: [parts, B / parts, ...] as [B, ...]."""
    return slices.swapaxes(0, 1).reshape(-1, *slices.shape[2:])


def reduced_in(dtype: jnp.dtype, gradient: Gradient) -> Gradient:
    """Gradients of each copy of the model, kept apart until the end and then summed in `dtype`, given in their own.

    Left alone, the partitioner sums a gradient where it arises, in the type that it is computed in and once for every
    slice of an accumulated batch. Half the bytes travel in bfloat16 (as `reduce_dtype` of PyTorch's FSDP, Zhao et al.
    2023, arXiv:2304.11277). Within a copy, over the axis fsdp, nothing changes. Every copy draws with a key of its own,
    and the value is the mean of their values. Raises ValueError for a loss with a codebook, whose statistics are those
    of the whole batch.
    """
    def of_copies(params: Tree, codebook: Tree, batch: Any, key: jax.Array) -> Any:
        if jax.tree.leaves(codebook):
            raise ValueError('gradients of copies are for losses without a codebook')
        count = copies_of_the_model()

        def of_one(part: Any, number: jax.Array) -> Any:
            (value, (_, metrics)), grads = gradient(params, codebook, part, jax.random.fold_in(key, number))
            return (value, metrics), grads

        with within_a_copy():
            figures, grads = jax.vmap(of_one, spmd_axis_name=COPIES)(split_by_copy(batch), jnp.arange(count))
        value, metrics = jax.tree.map(lambda x: jnp.mean(x, axis=0), figures)
        return (value, (codebook, metrics)), jax.tree.map(lambda x: _mean_in(dtype, x), grads)

    return of_copies


def _mean_in(dtype: jnp.dtype, x: jax.Array) -> jax.Array:
    """The mean of the first axis, whose terms meet in `dtype`: `jnp.sum` would widen them first."""
    terms = (x / x.shape[0]).astype(dtype)
    return jax.lax.reduce(terms, jnp.zeros((), dtype), jax.lax.add, (0,)).astype(x.dtype)
