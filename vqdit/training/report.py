"""The compile report: what a training step costs, before the first one is taken."""

import jax

from vqdit.training.state import TrainState


def compile_report(compiled: jax.stages.Compiled, state: TrainState, name: str) -> str:
    """One line: parameters, FLOPs and bytes of a step, memory on a device."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    parts = [f'{name}: {parameters:,} parameters']
    cost = compiled.cost_analysis() or {}
    if cost.get('flops', 0) > 0:
        parts.append(f'{cost["flops"] / 1e9:.2f} GFLOP a step and device')
    memory = compiled.memory_analysis()
    if memory is not None:
        resident = memory.argument_size_in_bytes / 2**20
        temporary = memory.temp_size_in_bytes / 2**20
        parts.append(f'{resident:.0f} MiB of state and batch, {temporary:.0f} MiB of temporary memory')
    return ', '.join(parts)
