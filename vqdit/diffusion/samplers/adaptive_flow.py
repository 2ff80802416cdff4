"""The probability flow by steps that choose their own length (diffrax, the extra "ode")."""

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path
from vqdit.diffusion.samplers.solvers import Model, velocity
from vqdit.errors import UserError


def solve_adaptively(model: Model, path: Path, z: jax.Array, start: float = 1.0, stop: float = 1e-3,
                     relative: float = 1e-5, absolute: float = 1e-5,
                     most_steps: int = 4096) -> tuple[jax.Array, jax.Array]:
    """z [B, N, C] at the noise level `stop` > 0, and how often the model was asked.

    Tsitouras' pair of orders 5 and 4; all samples share their steps, whose error stays below `relative` and `absolute`
    tolerances. The last step, to the clean vectors, is the model's answer there. Raises UserError without diffrax.
    """
    try:
        import diffrax
    except ImportError as error:
        raise UserError('adaptive steps need the package diffrax; run: pip install "vqdit[ode]"') from error
    field = lambda t, z, _: velocity(model, path, z, jnp.asarray(t, z.dtype))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field), diffrax.Tsit5(), t0=start, t1=stop, dt0=None, y0=z, max_steps=most_steps,
        stepsize_controller=diffrax.PIDController(rtol=relative, atol=absolute))
    # The last slope of a step is the first of the next, unless it was rejected.
    return solution.ys[-1], 6 * solution.stats['num_steps'] + 1
