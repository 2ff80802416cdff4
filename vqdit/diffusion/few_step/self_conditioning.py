"""Self-conditioning (arXiv:2208.04202, section 3): the network sees its own last estimate of the clean vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vqdit.diffusion.gaussian.paths import Path
from vqdit.diffusion.samplers.solvers import Solver

Network = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""`(z [B, N, C], t, estimate [B, N, C]) -> clean [B, N, C]`; the estimate is zero where there is none."""


def self_conditioned(key: jax.Array, network: Network, z: jax.Array, t: jax.Array, share: float = 0.5) -> jax.Array:
    """The network's answer in training: for a random `share` of the examples given its own first estimate, through
    which no gradient flows, else given none."""
    chosen = jax.random.bernoulli(key, share, (z.shape[0],) + (1,) * (z.ndim - 1))
    estimate = jax.lax.stop_gradient(network(z, t, jnp.zeros_like(z)))
    return network(z, t, jnp.where(chosen, estimate, 0.0))


class Estimated(NamedTuple):
    """The memory of the inner solver, and the last estimate."""

    memory: Any
    clean: jax.Array


@dataclass(frozen=True)
class SelfConditioned:
    """Another solver whose model is a `Network`: every step hands its estimate to the next.

    The estimate is asked for once more beside the solver's own; in one compiled step the two are one evaluation.
    """

    solver: Solver

    def start(self, z: jax.Array) -> Estimated:
        return Estimated(self.solver.start(z), jnp.zeros_like(z))

    def step(self, keys: jax.Array, model: Network, path: Path, z: jax.Array, memory: Estimated, t: jax.Array,
             s: jax.Array) -> tuple[jax.Array, Estimated]:
        informed = lambda z, t: model(z, t, memory.clean)
        moved, inner = self.solver.step(keys, informed, path, z, memory.memory, t, s)
        return moved, Estimated(inner, informed(z, t))
