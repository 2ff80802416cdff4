"""The training step as a compiled program, on devices that are here or on ones that are only described."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from vqdit.performance.chips import find_chip
from vqdit.performance.cost import StepCost, describe, step_cost
from vqdit.training.sharding import placed_activations, replicated, shardings_of
from vqdit.training.state import TrainState

Step = Callable[[TrainState, Any, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


def compile_step(step: Step, mesh: Mesh, state: TrainState, batch: Any,
                 root: jax.Array | jax.ShapeDtypeStruct) -> tuple[jax.stages.Compiled, StepCost]:
    """The step for arguments like these, which may be planned ones, and what it costs. The state is donated."""
    with placed_activations(mesh):
        jitted = jax.jit(step, donate_argnums=0, out_shardings=(shardings_of(state), replicated(mesh)))
        traced = jitted.trace(state, batch, root)
        compiled = traced.lower().compile()
    return compiled, step_cost(traced, compiled, mesh.size, find_chip(mesh.devices.flat[0].device_kind))


def compile_report(name: str, state: TrainState, cost: StepCost) -> str:
    """What a step costs, with the number of parameters, in a few lines."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return '\n  '.join([f'{name}: {parameters:,} parameters', *describe(cost)])
