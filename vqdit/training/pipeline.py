"""One run, stage by stage, like make: the tokenizers, then the token store, then the diffusion model.

A stage that is finished is not done again; one that was stopped goes on. A config without `diffusion.tasks` is one of
tokenizers alone: the run ends with them.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from vqdit.data import load
from vqdit.diffusion.clock import Task
from vqdit.errors import UserError, nearest
from vqdit.generation import Generator
from vqdit.generation.images import ImageGenerator
from vqdit.registry import choose
from vqdit.tokenizers.spec import TokenLayout
from vqdit.training import diffusion_stage, host, image_stage, sampling, token_stage, tokenizer_stage
from vqdit.training.adversary import build_adversary
from vqdit.training.averages import check_averages
from vqdit.training.factory import (
    build_model,
    build_process,
    check_kinds,
    learned_modalities,
)
from vqdit.training.gaussian import check_gaussian, is_gaussian
from vqdit.training.gradients import reduce_dtype
from vqdit.training.image_factory import is_image_model, tokenizers_alone
from vqdit.training.interruption import StopFlag
from vqdit.training.layouts import rough_layout
from vqdit.training.loop import Run
from vqdit.training.objective import WEIGHTINGS
from vqdit.training.optimizers import build_optimizer
from vqdit.training.sampler_settings import PATH, general
from vqdit.training.sharding import check_batch, check_split, make_mesh
from vqdit.training.watchdog import Watchdog
from vqdit.training.workdir import Lock, claim, load_config

logger = logging.getLogger(__name__)


def train(config: ConfigDict, workdir: str | Path) -> None:
    """Makes whatever is missing in `workdir` of the tokenizers, the token store and the diffusion model.

    Raises the errors of `vqdit.errors`; Preempted when it was asked to stop, after saving.
    """
    check_config(config)
    with start_run(config, Path(workdir)) as run:
        if is_image_model(config):
            image_stage.train_images(run)
        else:
            _train_modalities(run)
    if tokenizers_alone(config):
        logger.info('trained the tokenizers alone, as diffusion.tasks is empty; they are in %s/tokenizers', workdir)
    else:
        logger.info('trained; sample with: python sample.py --workdir=%s --num=8', workdir)


def _train_modalities(run: Run) -> None:
    tokenizers = tokenizer_stage.train_tokenizers(run)
    if tokenizers_alone(run.config):
        return
    layout = TokenLayout({name: tokenizer.spec for name, tokenizer in tokenizers.items()})
    token_stage.write_tokens(run, tokenizers, layout)
    diffusion_stage.train_diffusion(run, tokenizers, layout)


def check_config(config: ConfigDict) -> None:
    """Raises UserError or DataError for what can be known to be wrong before anything is written."""
    _check_numbers(config)
    if is_image_model(config):
        return image_stage.check_image_config(config)
    check_model(config, make_mesh(config.mesh))
    for split in dict.fromkeys(('train', 'test', config.evaluation.split)):
        load(config.data, split, modalities=tuple(config.tokenizers))
    return None


def _check_numbers(config: ConfigDict) -> None:
    numbers = {f'{section}.{name}': config[section][name] for section, name in (
        ('checkpoints', 'every'), ('logging', 'every'), ('logging', 'samples_every'))}
    for path, number in (numbers | {f'{PATH}.batch_size': general(config)['batch_size']}).items():
        if not isinstance(number, int) or number < 1:
            raise UserError(f'{path} is {number}; it is a whole number, 1 or more')


def check_model(config: ConfigDict, mesh: Mesh) -> None:
    """The part of `check_config` that needs no data. Raises UserError."""
    check_kinds(config)
    layout = rough_layout(config)
    for name in learned_modalities(config):
        _check_training(config.tokenizers[name].training, mesh)
        build_adversary(config, name)
    if not tokenizers_alone(config):
        _check_diffusion(config, layout, mesh)


def _check_training(section: ConfigDict, mesh: Mesh) -> None:
    check_batch(section.batch_size, mesh, section.accumulate)
    build_optimizer(section, section.steps)


def _check_diffusion(config: ConfigDict, layout: TokenLayout, mesh: Mesh) -> None:
    _check_training(config.diffusion.training, mesh)
    reduce_dtype(config.diffusion.training)
    for text in (*config.diffusion.tasks, *config.evaluation.tasks, *config.evaluation.examples_of):
        task = Task.parse(text)
        for name in (*task.given, *task.generated):
            if name not in config.tokenizers:
                raise UserError(f'task "{text}" names "{name}", which has no tokenizer; the config has '
                                f'{", ".join(config.tokenizers)}.{nearest(name, config.tokenizers)}')
    model = build_model(config, layout)
    check_split('diffusion.model.heads', model.heads, mesh, 'tensor')
    check_split('the tokens of an example in the trunk', model.places, mesh, 'sequence')
    if is_gaussian(config):
        check_gaussian(config)
    else:
        sampling.build_sampler(config, build_process(config, layout))
        choose(WEIGHTINGS, config.diffusion.weighting, 'diffusion.weighting')
    sampling.build_guidance(config)
    check_averages(config)
    sampling.check_guidance(config, map(Task.parse, config.evaluation.tasks or config.diffusion.tasks))


@contextlib.contextmanager
def start_run(config: ConfigDict, workdir: Path) -> Iterator[Run]:
    """Opens the workdir for writing: its lock, its saved config, the stop flag and the watchdog."""
    with Lock(workdir):
        claim(workdir, config)
        logger.info('%s; workdir %s', host.device_line(), workdir)
        with StopFlag(workdir) as stop, Watchdog(config.reliability.watchdog_seconds) as watchdog:
            yield Run(config, workdir, make_mesh(config.mesh), stop, watchdog)


def load_generator(workdir: str | Path, **overrides: Any) -> tuple[Generator, ConfigDict]:
    """The trained generator of a workdir (averaged parameters) and its config.

    `overrides` replace settings of `diffusion.sampler`, `sampler` itself another one (`sampling.change_sampler`).
    Raises UserError for an unknown one and a folder that is no workdir or has tokenizers alone, CheckpointError when
    nothing has been trained yet.
    """
    workdir = Path(workdir)
    config = load_config(workdir)
    if tokenizers_alone(config):
        raise UserError(f'{workdir} has tokenizers alone, nothing to generate with; train with diffusion.tasks')
    sampling.change_sampler(config, overrides)
    params, tokenizers = diffusion_stage.restore(workdir, config)
    layout = TokenLayout({name: tokenizer.spec for name, tokenizer in tokenizers.items()})
    batch_size = general(config)['batch_size']
    return sampling.build_generator(config, build_model(config, layout), params, tokenizers, batch_size), config


def load_image_generator(workdir: str | Path, **overrides: Any) -> ImageGenerator:
    """The trained image DiT of a workdir (averaged parameters); as `load_generator` otherwise."""
    config = load_config(workdir)
    for name, value in overrides.items():
        if name not in config.diffusion.sampler:
            raise UserError(f'sampler setting "{name}" is unknown; it has {", ".join(config.diffusion.sampler)}')
        with config.ignore_type():  # a solver's name may become a mapping of it and its settings
            config.diffusion.sampler[name] = value
    return image_stage.restore_generator(Path(workdir), config)
