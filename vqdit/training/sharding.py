"""The mesh, and where every array lies on it. Nothing outside this file knows about devices.

Parameters, optimizer state and averages are placed by rules: the first regular expression that matches the path of a
leaf names the mesh axis of each of its own axes. Without a match a leaf is the same on every device.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vqdit.errors import UserError
from vqdit.training.state import Tree

AXES = ('data', 'fsdp', 'sequence', 'tensor')
"""Of a mesh: copies of the model; copies that share its parameters; tokens of an example; heads and hidden units."""
Rules = Sequence[tuple[str, Sequence[str | None]]]
ACTIVATION_RULES = (('batch', ('data', 'fsdp')), ('tokens', 'sequence'), ('width', None))
"""Where the axes lie that modules name in `nn.with_logical_constraint`."""
COPIES = 'data'
"""The mesh axis of the copies of the model."""


def make_mesh(config: ml_collections.ConfigDict, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes `AXES`; an axis of -1 takes the devices that the others leave.

    Sizes that multiply to fewer devices use the first ones. Raises UserError when they multiply to more than there
    are, and for several processes when they leave any out or spread an example over two processes.

    Args:
        devices: the visible ones unless given.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config[axis] for axis in AXES]
    count = len(devices)
    if sizes.count(-1) == 1:
        rest = int(-np.prod(sizes))
        sizes[sizes.index(-1)] = max(count // max(rest, 1), 1)
    used = int(np.prod(sizes))
    if min(sizes) < 1 or used > count or (-1 in config.values() and used != count):
        asked = ', '.join(f'{axis}={config[axis]}' for axis in AXES)
        raise UserError(f'a mesh of {asked} does not fit the {count} visible devices; set one axis to -1 and let the '
                        f'others divide {count}')
    if jax.process_count() > 1 and used != count:
        raise UserError(f'a mesh of {used} of the {count} visible devices leaves processes without work; '
                        'set one axis to -1')
    arranged = _arranged(devices[:used], sizes)
    check_processes(arranged)
    return Mesh(arranged, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_processes(devices: np.ndarray) -> None:
    """Raises UserError when the devices of one example, in the shape of a mesh, belong to several processes.

    Each process reads a part of the batch of its own, so that they would take different examples for the same one.
    """
    *_, sequence, tensor = devices.shape
    for row in devices.reshape(-1, sequence * tensor):
        if len({device.process_index for device in row}) > 1:
            raise UserError(f'a mesh of sequence={sequence}, tensor={tensor} spreads an example over processes, which '
                            'read different ones; let their product divide the devices of a process')


def _arranged(devices: Sequence[jax.Device], sizes: Sequence[int]) -> np.ndarray:
    """The devices in the shape of the mesh, so that the last axes, which talk most, lie nearest to each other."""
    if devices[0].platform != 'tpu':
        return np.asarray(devices).reshape(sizes)
    slices = len({getattr(device, 'slice_index', None) for device in devices})
    if slices > 1 and sizes[0] % slices == 0:  # Only copies of the model talk over the network between slices.
        within = (sizes[0] // slices, *sizes[1:])
        return mesh_utils.create_hybrid_device_mesh(within, (slices, *(1 for _ in sizes[1:])), devices,
                                                    allow_split_physical_axes=True)
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)


@contextlib.contextmanager
def placed_activations(mesh: Mesh) -> Iterator[None]:
    """Within it, what is traced lies on `mesh` as `ACTIVATION_RULES` say."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        yield


def copies_of_the_model() -> int:
    """How many copies the mesh holds that is traced for; 1 where there is none."""
    return jax.sharding.get_abstract_mesh().shape.get(COPIES, 1)


def split_by_copy(batch: Tree) -> Tree:
    """Rows [B, ...] as [copies, B / copies, ...], each on the devices where it was."""
    count = copies_of_the_model()

    def split(x: jax.Array) -> jax.Array:
        rows = x.reshape(count, x.shape[0] // count, *x.shape[1:])
        return jax.lax.with_sharding_constraint(rows, PartitionSpec(COPIES, 'fsdp')) if count > 1 else rows

    return jax.tree.map(split, batch)


@contextlib.contextmanager
def within_a_copy() -> Iterator[None]:
    """Within it, what is traced for one copy of the model lies on the devices of that copy."""
    rules = [(name, 'fsdp' if name == 'batch' else axes) for name, axes in nn.get_logical_axis_rules()]
    with nn.logical_axis_rules(rules):
        yield


def fixed_size(config: ml_collections.ConfigDict) -> int:
    """The devices of a mesh whose sizes are all stated; 0 where an axis takes those that are left."""
    return 0 if -1 in config.values() else int(np.prod(config.values()))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))


def tree_shardings(tree: Tree, rules: Rules, mesh: Mesh) -> Tree:
    """The sharding of every leaf of `tree` by the first rule that matches its path, `a/b/c`.

    An axis that the mesh axis does not divide stays whole.
    """
    def place(path: Any, leaf: Any) -> NamedSharding:
        name = '/'.join(str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key)))) for key in path)
        for pattern, axes in rules:
            if re.search(pattern, name) and len(axes) <= leaf.ndim:
                return NamedSharding(mesh, _fitting(axes, leaf.shape, mesh))
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, tree)


def planned_tree(create: Callable[[], Tree], rules: Rules, mesh: Mesh) -> Tree:
    """Shapes of what `create` makes, each with its sharding; nothing is computed."""
    shapes = jax.eval_shape(create)
    return jax.tree.map(lambda leaf, lies: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=lies),
                        shapes, tree_shardings(shapes, rules, mesh))


def shardings_of(tree: Tree) -> Tree:
    """How the leaves of a tree lie, of arrays or of planned ones."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def planned_arguments(create: Callable[[], Tree], batch: Tree, rules: Rules, mesh: Mesh) -> tuple[Tree, Tree, Any]:
    """The state, the batch and the root key of a training step, as `planned_tree` gives them.

    Args:
        batch: like those of all processes together; shapes are enough.
    """
    key = planned_tree(lambda: jax.random.key(0), (), mesh)
    return planned_tree(create, rules, mesh), planned_batch(batch, mesh), key


def _fitting(axes: Sequence[str | None], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    # Rules name the last axes, so that stacked layers, which add one in front, need no rules of their own.
    padded = [None] * (len(shape) - len(axes)) + list(axes)
    return PartitionSpec(*(axis if axis and side % mesh.shape[axis] == 0 else None
                           for axis, side in zip(padded, shape)))


def place_batch(batch: Tree, mesh: Mesh) -> Tree:
    """Global device arrays of this process's part of a batch of numpy arrays."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def check_split(what: str, count: int, mesh: Mesh, axis: str) -> None:
    """Raises UserError when the devices of a mesh axis do not divide a number of the model."""
    size = mesh.shape[axis]
    if count % size:
        fitting = [number for number in range(1, count + 1) if count % number == 0]
        raise UserError(f'mesh.{axis} {size} does not divide {what}, {count}; choose one of '
                        f'{", ".join(map(str, fitting))}')


def planned_batch(batch: Tree, mesh: Mesh) -> Tree:
    """Shapes of global arrays with the sharding that `place_batch` gives them."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), batch)


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises UserError when the devices or the accumulation steps do not divide the batch."""
    shards = mesh.shape['data'] * mesh.shape['fsdp'] * accumulate
    if batch_size % shards:
        raise UserError(f'batch_size {batch_size} is not divisible by {shards} (devices of the data and fsdp axes '
                        f'x accumulation steps); the nearest that is: {max(round(batch_size / shards), 1) * shards}')
