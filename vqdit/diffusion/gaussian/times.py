"""How often a noise level is trained: maps of u in (0, 1], uniform, to noise levels, each [...].

They rise with u, so that strata of u, one for every example of a batch, become strata of the noise level.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from vqdit.diffusion.gaussian.paths import Path, shift_time, time_at
from vqdit.errors import UserError

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


def table(losses: Sequence[float]) -> Times:
    """Levels as often as the loss rises there, `losses` being those at equally spaced levels from 0 to 1: with u it
    then rises evenly, and no level is trained where there is nothing to learn (time warping, arXiv:2211.15089).

    Raises UserError unless the losses rise at every level; `measured_losses` makes such a table.
    """
    values = np.asarray(losses, np.float64)
    if values.ndim != 1 or len(values) < 2 or not (np.diff(values) > 0).all():
        raise UserError(f'the losses of a table of times must rise from level to level, not {tuple(losses)}')
    shares, levels = (values - values[0]) / (values[-1] - values[0]), np.linspace(0.0, 1.0, len(values))
    return lambda path, u: jnp.interp(u, jnp.asarray(shares, u.dtype), jnp.asarray(levels, u.dtype))


def measured_losses(clock: np.ndarray, losses: np.ndarray, pieces: int = 16, least: float = 0.01) -> tuple[float, ...]:
    """The table of losses that were met at the noise levels `clock`, both [...]: `pieces` + 1 values.

    It rises everywhere by at least a share `least` of an even rise, so that every level is still trained.
    """
    place = np.clip(np.ceil(np.ravel(clock) * pieces).astype(int), 1, pieces)
    counts = np.bincount(place, minlength=pieces + 1)
    sums = np.bincount(place, np.ravel(losses), minlength=pieces + 1)
    middles = (np.arange(1, pieces + 1) - 0.5) / pieces
    met = counts[1:] > 0
    levels = np.linspace(0.0, 1.0, pieces + 1)
    values = np.maximum.accumulate(np.interp(levels, middles[met], sums[1:][met] / counts[1:][met]))
    rise = max(values[-1] - values[0], np.finfo(float).tiny)
    return tuple((values + least * rise * levels).tolist())


def _normal(u: jax.Array) -> jax.Array:
    return ndtri(jnp.clip(u, NEAR_THE_ENDS, 1.0 - NEAR_THE_ENDS))


TIMES: dict[str, Callable[..., Times]] = {
    'uniform': lambda: uniform, 'shifted': shifted, 'logit_normal': logit_normal, 'log_normal': log_normal,
    'table': table}
"""By name, each with its own settings."""
