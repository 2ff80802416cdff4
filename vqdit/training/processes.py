"""Agreement between the processes of one run."""

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
