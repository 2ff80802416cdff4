"""Agreement between the processes of one run."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def any_process(*flags: bool) -> tuple[bool, ...]:
    """Each flag, or-ed over all processes: the same answer everywhere.

    With several processes this is a collective operation, which waits for the work dispatched before.
    """
    if jax.process_count() == 1:
        return flags
    gathered = multihost_utils.process_allgather(np.array(flags))
    return tuple(bool(flag) for flag in gathered.any(axis=0))


def to_host(tree: Any) -> Any:
    """Whole numpy arrays of a tree that may be split over processes: a collective operation when it is."""
    def whole(leaf: Any) -> np.ndarray:
        split = isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated)
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True) if split else leaf)
    return jax.tree.map(whole, tree)
