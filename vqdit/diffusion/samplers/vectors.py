"""Codes by way of vectors: a Gaussian process over code vectors, a solver, and the nearest codes at the end.

It is called as the samplers of codes are; its denoiser takes noisy vectors in place of noisy codes.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.diffusion.clock import GENERATED, GIVEN, clock_of
from vqdit.diffusion.gaussian.code_space import CodeSpace, VectorDenoiser
from vqdit.diffusion.samplers.shared import split_each
from vqdit.diffusion.samplers.solvers import Solver, solve
from vqdit.tokenizers.spec import TokenLayout


@dataclass(frozen=True, eq=False)
class VectorSampler:
    """Solves from noise at the first level of `grid [steps + 1]` to its last, 0, and takes the nearest codes.

    With a perfect network the error is that of the solver, and what `grid[0] < 1` or alpha(1) > 0 leave out.
    """

    space: CodeSpace
    solver: Solver
    grid: np.ndarray

    def comparable(self, answers: jax.Array) -> jax.Array:
        return self.space.comparable(answers)

    def __call__(self, keys: jax.Array, denoiser: VectorDenoiser, codes: jax.Array, roles: jax.Array,
                 layout: TokenLayout) -> jax.Array:
        """Samples int32 [B, N]: given tokens as in `codes`, absent ones masked, the others generated."""
        process, vectors = self.space.process, self.space.vectors
        given, (start, steps) = vectors.of(codes), split_each(keys, 2)
        grid = jnp.asarray(self.grid)
        z = jax.vmap(lambda key: process.prior(key, given.shape[1:], grid[0]))(start)

        def model(z: jax.Array, t: jax.Array, *estimate: jax.Array) -> jax.Array:
            clock = clock_of(roles, jnp.full((1, 1), t))
            answers = denoiser(self.space.seen(z, given, roles, clock, *estimate), clock)
            return process.clean(self.space.answer(answers), z, clock)

        final = vectors.nearest(solve(self.solver, model, process.path, z, grid, steps))
        hidden = jnp.where(roles == GIVEN, codes, jnp.asarray(layout.mask_ids)[None])
        return jnp.where(roles == GENERATED, final, hidden)
