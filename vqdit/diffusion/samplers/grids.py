"""Time grids: where a solver stops on its way from noise level 1 to 0. Each is float32 [steps + 1], falling."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.diffusion.gaussian.paths import Path, log_snr, shift_time, time_at
from vqdit.errors import UserError


def check_steps(steps: int) -> None:
    """Raises UserError for fewer than one step."""
    if steps < 1:
        raise UserError(f'a sampler needs at least 1 step, not {steps}')


def uniform(steps: int, start: float = 1.0, stop: float = 0.0) -> jax.Array:
    """Equal steps of t."""
    check_steps(steps)
    return jnp.linspace(start, stop, steps + 1)


def quadratic(steps: int) -> jax.Array:
    """Equal steps of sqrt(t): finer near the data (DDIM, arXiv:2010.02502)."""
    return uniform(steps) ** 2


def arccos(steps: int) -> jax.Array:
    """Equal steps of the angle whose cosine is 1 - t: fine near the data (MaskBit, arXiv:2409.16211)."""
    return 1.0 - jnp.cos(0.5 * jnp.pi * uniform(steps))


def shifted(grid: jax.Array, shift: float) -> jax.Array:
    """A grid whose noise levels are shifted as those in training were."""
    return shift_time(grid, shift)


def karras(steps: int, path: Path, smallest: float = 0.002, largest: float = 80.0, power: float = 7.0) -> jax.Array:
    """Equal steps of (sigma / alpha)^(1 / power), then 0 (EDM, arXiv:2206.00364, equation (5))."""
    check_steps(steps)
    roots = np.linspace(largest ** (1 / power), smallest ** (1 / power), steps)
    return _then_zero(path, -2.0 * power * np.log(roots))


def equal_log_snr(steps: int, path: Path, start: float = 0.999, stop: float = 1e-3) -> jax.Array:
    """Equal steps of the logarithm of the signal-to-noise ratio from t = `start` to `stop`, then 0."""
    check_steps(steps)
    first, last = (float(log_snr(path, jnp.asarray(t))) for t in (start, stop))
    return _then_zero(path, np.linspace(first, last, steps))


GRIDS: dict[str, Callable[..., jax.Array]] = {
    'uniform': lambda steps, path: uniform(steps), 'quadratic': lambda steps, path: quadratic(steps),
    'arccos': lambda steps, path: arccos(steps), 'karras': karras, 'log_snr': equal_log_snr,
    'shifted': lambda steps, path, shift: shifted(uniform(steps), shift)}
"""By name, `(steps, path, **settings)`."""


def _then_zero(path: Path, levels: np.ndarray) -> jax.Array:
    """The noise levels at which log snr takes the given values, and 0 behind them."""
    return jnp.append(time_at(path, jnp.asarray(levels, jnp.float32)), 0.0)
