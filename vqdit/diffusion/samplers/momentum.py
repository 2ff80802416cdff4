"""Guidance with a memory: the change from one step to the next counts (APG, arXiv:2410.02416, section 4.3)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path
from vqdit.diffusion.guidance import Guidance
from vqdit.diffusion.samplers.solvers import Solver

Pair = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""`(z [B, N, C], t) -> (c, u)`: the clean vectors with and without conditions."""


class Moved(NamedTuple):
    """The memory of the inner solver, and the running change c - u."""

    memory: Any
    change: jax.Array


@dataclass(frozen=True)
class Momentum:
    """Another solver under a guidance that sees change_n = c - u + momentum change_(n - 1) in place of c - u.

    Below 0, as APG has it, what points the same way in every step is damped; 0 is the guidance alone. The model is a
    `Pair`, asked once more beside the solver's own evaluations; in one compiled step the two are one.
    """

    solver: Solver
    guidance: Guidance
    momentum: float = -0.5

    def start(self, z: jax.Array) -> Moved:
        return Moved(self.solver.start(z), jnp.zeros_like(z))

    def step(self, keys: jax.Array, model: Pair, path: Path, z: jax.Array, memory: Moved, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Moved]:
        def guided(z: jax.Array, t: jax.Array) -> jax.Array:
            c, u = model(z, t)
            return self.guidance(c, u - self.momentum * memory.change, t)

        moved, inner = self.solver.step(keys, guided, path, z, memory.memory, t, s)
        c, u = model(z, t)
        return moved, Moved(inner, c - u + self.momentum * memory.change)
