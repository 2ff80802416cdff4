"""The steps of a run that are compiled while an earlier stage trains."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vqdit.training.compilation import Program, Step, compile_step
from vqdit.training.diffusion_stage import diffusion_step, reads_tokenizers
from vqdit.training.factory import learned_modalities
from vqdit.training.image_factory import tokenizers_alone
from vqdit.training.layouts import expected_layout
from vqdit.training.loop import Run
from vqdit.training.sharding import planned_arguments
from vqdit.training.state import TrainState, Tree
from vqdit.training.tokenizer_stage import plan

Planned = tuple[Step, Callable[[], TrainState], Tree]
"""A training step, what makes the state before the first, and a batch, of which the shapes count."""


def prepare_programs(run: Run) -> None:
    """Has the steps of the stages that are not begun compiled one after the other, beside what is trained.

    Not on a GPU, whose compiler times kernels, which a training beside it would disturb; nor on several processes,
    which would have to compile in step.
    """
    if jax.default_backend() == 'gpu' or jax.process_count() > 1:
        return
    config = run.config
    for name in learned_modalities(config):
        if not _is_begun(run, f'tokenizers/{name}'):
            _prepare(run, f'{name} tokenizer', functools.partial(_tokenizer_step, run, name))
    if not (tokenizers_alone(config) or reads_tokenizers(config) or _is_begun(run, 'diffusion')):
        _prepare(run, 'diffusion', functools.partial(token_step, config))


def _is_begun(run: Run, stage: str) -> bool:
    return (run.workdir / stage / 'checkpoints').exists()


def _prepare(run: Run, name: str, make: Callable[[], Planned]) -> None:
    def program() -> Program:
        step, create, batch = make()
        return compile_step(step, run.mesh, *planned_arguments(create, batch, run.config.sharding_rules, run.mesh))

    run.programs.prepare(name, program)


def _tokenizer_step(run: Run, modality: str) -> Planned:
    stage, create = plan(run, modality)
    return stage.step, create, stage.batches.at(0)


def token_step(config: ConfigDict) -> Planned:
    """That of the multimodal model, of tokenizers that need not be trained yet."""
    layout = expected_layout(config)
    rows = config.diffusion.training.batch_size
    return *diffusion_step(config, layout), {'codes': jax.ShapeDtypeStruct((rows, layout.length), jnp.int32)}
