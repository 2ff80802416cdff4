"""Parameters under the names and shapes of another project, both ways.

A layout is a table. Each row pairs one of our leaves with one key of theirs, or several keys that are its parts, and
says how the array is turned. A `{}` in a key is the number of a layer: leaves of `blocks` are stacked over it, all
others are repeated in each.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vqdit.errors import CheckpointError

Tree = Any
Array = Any
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Conversion:
    """`store` turns an array of ours into theirs; `load` turns it back, given our shape."""

    store: Callable[[Array], Array]
    load: Callable[[Array, tuple[int, ...]], Array]


def kernel(inputs: int = 1) -> Conversion:
    """Dense kernels [*inputs, *outputs], of so many input axes, and PyTorch's [outputs, inputs]."""
    def store(x: Array) -> Array:
        return x.reshape(int(np.prod(x.shape[:inputs])), -1).T
    return Conversion(store, lambda y, shape: y.T.reshape(shape))


VECTOR = Conversion(lambda x: x.reshape(-1), lambda y, shape: y.reshape(shape))
SAME = Conversion(lambda x: x, lambda y, shape: y)
BATCH_OF_ONE = Conversion(lambda x: x[None], lambda y, shape: y[0])


def patch_kernel(patch: int) -> Conversion:
    """Dense kernels [patch^2 C, D] over folded patches and convolutions [D, C, patch, patch]."""
    def store(x: Array) -> Array:
        return x.reshape(patch, patch, -1, x.shape[-1]).transpose(3, 2, 0, 1)
    return Conversion(store, lambda y, shape: y.transpose(2, 3, 1, 0).reshape(shape))


@dataclass(frozen=True)
class Row:
    """One leaf of ours, `a/b/c`, and the keys of theirs that are its parts along their first axis."""

    ours: str
    theirs: tuple[str, ...]
    conversion: Conversion

    @property
    def stacked(self) -> bool:
        return self.ours.startswith('blocks/')


def dense_rows(ours: str, *theirs: str, inputs: int = 1) -> tuple[Row, Row]:
    """The rows of a dense layer with kernel, of so many input axes, and bias."""
    return (Row(f'{ours}/kernel', tuple(f'{key}.weight' for key in theirs), kernel(inputs)),
            Row(f'{ours}/bias', tuple(f'{key}.bias' for key in theirs), VECTOR))


@dataclass(frozen=True)
class Layout:
    """A table for networks of `depth` layers."""

    rows: tuple[Row, ...]
    depth: int

    def store(self, params: Tree) -> dict[str, Array]:
        """The state dict of `params`, which may be abstract under `jax.eval_shape`."""
        leaves = flatten_dict(params, sep='/')
        return {key: part for row in self.rows for key, part in self._parts(row, leaves[row.ours])}

    def shapes(self, params: Tree) -> Shapes:
        """The keys and shapes that belong to abstract `params`."""
        return {key: leaf.shape for key, leaf in jax.eval_shape(self.store, params).items()}

    def load(self, state: Mapping[str, np.ndarray], params: Tree) -> Tree:
        """fp32 parameters of the shapes of abstract `params`, where the table has a row for them.

        Raises CheckpointError when copies of one array differ.
        """
        leaves = flatten_dict(params, sep='/')
        return unflatten_dict({row.ours: self._load(row, state, leaves[row.ours].shape) for row in self.rows}, sep='/')

    def _layers(self, row: Row) -> int:
        return self.depth if '{}' in row.theirs[0] else 1

    def _parts(self, row: Row, leaf: Array) -> Iterator[tuple[str, Array]]:
        for layer in range(self._layers(row)):
            whole = row.conversion.store(leaf[layer] if row.stacked else leaf)
            size = whole.shape[0] // len(row.theirs)
            for index, key in enumerate(row.theirs):
                yield key.format(layer), whole[index * size:(index + 1) * size]

    def _load(self, row: Row, state: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
        inner = shape[1:] if row.stacked else shape
        layers = [row.conversion.load(np.concatenate([state[key.format(layer)] for key in row.theirs]), inner)
                  for layer in range(self._layers(row))]
        if row.stacked:
            return np.stack(layers).astype(np.float32, copy=False)
        if not all(np.array_equal(layer, layers[0]) for layer in layers):
            raise CheckpointError(f'the layers have different {row.theirs[0].format("*")}, where one is shared by all '
                                  'here; only a network whose layers share it can be read')
        return np.asarray(layers[0], np.float32)


def check_keys(state: Mapping[str, np.ndarray], expected: Shapes, what: str, remedy: str) -> None:
    """Raises CheckpointError that lists all missing, unexpected and misshapen tensors, layers taken together."""
    misshapen = [f'{key} {tuple(state[key].shape)} instead of {shape}' for key, shape in expected.items()
                 if key in state and tuple(state[key].shape) != tuple(shape)]
    problems = [f'{kind}: {_layers_together(keys)}' for kind, keys in (
        ('missing', expected.keys() - state.keys()), ('unexpected', state.keys() - expected.keys()),
        ('of another shape', misshapen)) if keys]
    if problems:
        raise CheckpointError(f'{what} do not fit. {"; ".join(problems)}. {remedy}')


def _layers_together(keys: Iterable[str]) -> str:
    groups = Counter(re.sub(r'\.\d+\.', '.*.', key, count=1) for key in sorted(keys))
    return ', '.join(f'{key} ({count} times)' if count > 1 else key for key, count in groups.items())
