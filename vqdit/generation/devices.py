"""Sampling on all devices of this process: parameters everywhere, the samples of a batch split over them."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class OnDevices:
    """Parameters and a batch size, for functions whose rows are independent.

    Attributes:
        batch_size: rows that are computed at once, at most.
    """

    def __init__(self, params: Any, batch_size: int):
        self.batch_size = batch_size
        self.params = params

    @property
    def params(self) -> Any:
        """The parameters of the model, the same on every device."""
        return self._params

    @params.setter
    def params(self, params: Any) -> None:
        self._params = jax.device_put(params, NamedSharding(mesh_for_rows(self.batch_size), PartitionSpec()))

    def run(self, function: Callable, rows: tuple, *rest: Any) -> Any:
        """`function(params, *rows, *rest)` with the first axis of the `rows` split over the devices."""
        mesh = mesh_for_rows(len(rows[0]))
        split, everywhere = NamedSharding(mesh, PartitionSpec('data')), NamedSharding(mesh, PartitionSpec())
        # Training samples too, under a mesh of its own.
        with jax.set_mesh(mesh):
            return function(jax.device_put(self.params, everywhere), *jax.device_put(rows, split), *rest)


def mesh_for_rows(batch_size: int) -> Mesh:
    """As many devices of this process as divide `batch_size` rows, on the axis "data"."""
    devices = jax.local_devices()
    return Mesh(np.asarray(devices[:math.gcd(batch_size, len(devices))]), ('data',))
