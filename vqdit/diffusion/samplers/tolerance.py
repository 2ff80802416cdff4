"""The probability flow in pieces that choose their own length (diffrax, the extra "ode")."""

import importlib.util
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path
from vqdit.diffusion.samplers.solvers import Memory, Model, velocity
from vqdit.errors import UserError


@dataclass(frozen=True)
class Adaptive:
    """Tsitouras' pair of orders 5 and 4 on (1) of `solvers`, in as many pieces as its tolerances ask for.

    A grid says only where it has to stop: one step is enough. All samples of a batch share their pieces, so that here
    alone a sample depends, within the tolerances, on those beside it.

    Attributes:
        relative, absolute: tolerances of the error of a piece, the root mean square over a batch.
        last: the noise level from which a step to 0 goes on to the model's answer at once.
        most: pieces of a step; a flow that needs more is an error of the running program.

    Raises UserError without diffrax, and for tolerances or a last level that are not above 0.
    """

    relative: float = 1e-5
    absolute: float = 1e-5
    last: float = 1e-3
    most: int = 4096

    def __post_init__(self):
        if importlib.util.find_spec('diffrax') is None:
            raise UserError('the solver "adaptive" needs the package diffrax; run: pip install "vqdit[ode]"')
        for name in ('relative', 'absolute', 'last'):
            if not getattr(self, name) > 0:
                raise UserError(f'{name} of the solver "adaptive" is {getattr(self, name)}; it lies above 0, as 1e-3')

    def start(self, z: jax.Array) -> Memory:
        del z

    def step(self, keys: jax.Array, model: Model, path: Path, z: jax.Array, memory: Memory, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Memory]:
        import diffrax
        del keys
        stop = jnp.where(s > 0, s, jnp.minimum(self.last, t))
        field = lambda t, z, _: velocity(model, path, z, jnp.asarray(t, z.dtype))
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field), diffrax.Tsit5(), t0=t, t1=stop, dt0=None, y0=z, max_steps=self.most,
            stepsize_controller=diffrax.PIDController(rtol=self.relative, atol=self.absolute))
        moved = solution.ys[-1]
        return jax.lax.cond(s > 0, lambda: moved, lambda: model(moved, stop)), memory
