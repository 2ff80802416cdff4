"""How often a noise level is trained: maps of u in (0, 1], uniform, to noise levels, each [...].

They rise with u, so that strata of u, one for every example of a batch, become strata of the noise level.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from vqdit.diffusion.gaussian.paths import Path, shift_time, time_at

Times = Callable[[Path, jax.Array], jax.Array]
NEAR_THE_ENDS = 1e-6


def uniform(path: Path, u: jax.Array) -> jax.Array:
    """All levels as often."""
    del path
    return u


def shifted(shift: float) -> Times:
    """Uniform, then shifted towards noise (`paths.shift_time`), as the grid of the sampler should be."""
    return lambda path, u: shift_time(u, shift)


def logit_normal(mean: float = 0.0, scale: float = 1.0) -> Times:
    """The logit of t is normal (arXiv:2403.03206, equation (19)): the middle more often than the ends."""
    return lambda path, u: jax.nn.sigmoid(mean + scale * _normal(u))


def log_normal(mean: float = -1.2, scale: float = 1.2) -> Times:
    """log(sigma / alpha) is normal (EDM, arXiv:2206.00364, table 1), on any path."""
    return lambda path, u: time_at(path, -2.0 * (mean + scale * _normal(u)))


def _normal(u: jax.Array) -> jax.Array:
    return ndtri(jnp.clip(u, NEAR_THE_ENDS, 1.0 - NEAR_THE_ENDS))


TIMES: dict[str, Callable[..., Times]] = {
    'uniform': lambda: uniform, 'shifted': shifted, 'logit_normal': logit_normal, 'log_normal': log_normal}
"""By name, each with its own settings."""
