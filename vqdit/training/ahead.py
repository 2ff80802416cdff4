"""The training step of a config, compiled for a machine that is not there: what it costs, and whether it fits."""

import logging
import math
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vqdit.errors import UserError
from vqdit.performance.chips import GIB
from vqdit.performance.cost import StepCost
from vqdit.training.compilation import Step, compile_report, compile_step
from vqdit.training.diffusion_stage import diffusion_step
from vqdit.training.host import device_line
from vqdit.training.image_factory import image_training, is_image_model, planned_latents, tokenizers_alone
from vqdit.training.layouts import expected_layout
from vqdit.training.pipeline import check_model
from vqdit.training.sharding import make_mesh, planned_arguments
from vqdit.training.state import TrainState, Tree
from vqdit.training.topologies import topology_devices

logger = logging.getLogger(__name__)
REMATS = ('none', 'dots', 'full')
REFUSALS = (r'[Uu]sed ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm',
            r'\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)')
"""How XLA says what a chip needs and what it has."""
Planned = tuple[Step, Callable[[], TrainState], Tree]
"""A training step, what makes the state before the first, and its batch, of which the shapes count."""
UNITS = {'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}


def compile_ahead(config: ConfigDict, topology: str = '') -> str:
    """The report of `cost_ahead` in words."""
    state, cost = cost_ahead(config, topology)
    return compile_report(f'diffusion on {topology or device_line()}', state, cost)


def cost_ahead(config: ConfigDict, topology: str = '') -> tuple[TrainState, StepCost]:
    """The abstract state and the cost of the last stage's step on `topology`, such as "v5e:4x4", or on what is here.

    Raises UserError for a topology that is unknown, a mesh that it cannot hold, and a step that does not fit its
    memory: by how much, and the setting that helps first.
    """
    mesh = make_mesh(config.mesh, topology_devices(topology) if topology else None)
    place = topology or device_line()
    step, create, batch = _image_step(config) if is_image_model(config) else _token_step(config, mesh)
    arguments = planned_arguments(create, batch, config.sharding_rules, mesh)
    state = arguments[0]
    logger.info('compiling for %s', place)
    try:
        _, cost = compile_step(step, mesh, *arguments)
    except jax.errors.JaxRuntimeError as error:
        needed = _needed_memory(str(error))
        if needed is None:
            raise
        raise UserError(_too_large(config, mesh, place, state, *needed)) from error
    if cost.fits is False and cost.chip is not None:
        report = compile_report(f'diffusion on {place}', state, cost)
        raise UserError(f'{report}\n{_too_large(config, mesh, place, state, cost.memory, cost.chip.memory)}')
    return state, cost


def _token_step(config: ConfigDict, mesh: Mesh) -> Planned:
    """That of the multimodal model, of tokenizers that need not be trained."""
    if tokenizers_alone(config):
        raise UserError('diffusion.tasks is empty: a config of tokenizers alone has no diffusion step to compile')
    check_model(config, mesh)
    layout = expected_layout(config)
    return *diffusion_step(config, layout), {'codes': _integers(config, layout.length)}


def _image_step(config: ConfigDict) -> Planned:
    latents = planned_latents(config)
    create, step = image_training(config, latents, {})
    return step, create, {'codes': _integers(config, latents.spec.length), 'label': _integers(config)}


def _integers(config: ConfigDict, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((config.diffusion.training.batch_size, *shape), jnp.int32)


def _needed_memory(message: str) -> tuple[int, int] | None:
    """Bytes that a chip needs and has, from XLA's refusal; None when it says something else."""
    for form in REFUSALS:
        if found := re.search(form, message):
            return int(float(found[1]) * UNITS[found[2]]), int(float(found[3]) * UNITS[found[4]])
    return None


def _too_large(config: ConfigDict, mesh: Mesh, place: str, state: TrainState, needed: int, there: int) -> str:
    """`needed` and `there` are bytes of a chip."""
    return (f'the step does not fit {place}: {needed / GIB:.2f} GiB a chip of {there / GIB:.2f}, '
            f'{(needed - there) / GIB:.2f} GiB too much; what helps first: {first_remedy(config, mesh, state, there)}')


def first_remedy(config: ConfigDict, mesh: Mesh, state: TrainState, memory: int) -> str:
    """The setting that frees most at the least cost: shards where the state is too large, else fewer activations.

    Args:
        state: abstract, with its shardings.
        memory: bytes of a chip.
    """
    shards, devices = mesh.shape['fsdp'], mesh.shape['data'] * mesh.shape['fsdp']
    resident = bytes_on_a_device(state)
    wider = [size for size in range(shards + 1, devices + 1) if devices % size == 0 and size % shards == 0]
    if resident > memory / 2 and wider:
        enough = [size for size in wider if resident * shards / size <= memory / 2]
        return (f'--config.mesh.fsdp={(enough or wider[-1:])[0]} (parameters, optimizer and average take '
                f'{resident / GIB:.2f} GiB a chip)')
    section = config.diffusion
    if section.model.remat in REMATS[:-1]:
        return f'--config.diffusion.model.remat={REMATS[REMATS.index(section.model.remat) + 1]}'
    accumulate, rows = 2 * section.training.accumulate, section.training.batch_size // devices
    if rows % accumulate == 0:
        return f'--config.diffusion.training.accumulate={accumulate}'
    if wider:
        return f'--config.mesh.fsdp={wider[-1]}'
    return 'more chips, a smaller batch, or a smaller model'


def bytes_on_a_device(tree: Tree) -> int:
    """Bytes of the shards of one device, of arrays or of shapes with shardings."""
    return sum(leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(tree))
