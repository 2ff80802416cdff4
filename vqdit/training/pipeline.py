"""One run, stage by stage, like make: the tokenizers, then the token store, then the diffusion model.

A stage that is finished is not done again; one that was stopped goes on.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vqdit.data import load
from vqdit.diffusion.clock import Task
from vqdit.errors import UserError, nearest
from vqdit.generation import Generator
from vqdit.tokenizers.spec import TokenLayout, TokenSpec
from vqdit.training import diffusion_stage, host, token_stage, tokenizer_stage
from vqdit.training.factory import (
    build_learned_tokenizer,
    build_model,
    build_sampler,
    choose,
    learned_modalities,
)
from vqdit.training.gaussian import check_gaussian, is_gaussian
from vqdit.training.interruption import StopFlag
from vqdit.training.loop import Run
from vqdit.training.objective import WEIGHTINGS
from vqdit.training.optimizers import build_optimizer
from vqdit.training.sharding import check_batch, make_mesh
from vqdit.training.watchdog import Watchdog
from vqdit.training.workdir import Lock, claim, load_config

logger = logging.getLogger(__name__)


def train(config: ConfigDict, workdir: str | Path) -> None:
    """Makes whatever is missing in `workdir` of the tokenizers, the token store and the diffusion model.

    Raises the errors of `vqdit.errors`; Preempted when it was asked to stop, after saving.
    """
    check_config(config)
    with start_run(config, Path(workdir)) as run, jax.set_mesh(run.mesh):
        tokenizers = tokenizer_stage.train_tokenizers(run)
        layout = TokenLayout({name: tokenizer.spec for name, tokenizer in tokenizers.items()})
        token_stage.write_tokens(run, tokenizers, layout)
        diffusion_stage.train_diffusion(run, tokenizers, layout)
    logger.info('trained; sample with: python sample.py --workdir=%s --num=8', workdir)


def check_config(config: ConfigDict) -> None:
    """Raises UserError or DataError for what can be known to be wrong before anything is written."""
    mesh = make_mesh(config.mesh)
    sections = {f'tokenizers.{name}.training': config.tokenizers[name].training
                for name in learned_modalities(config)}
    for section in [*sections.values(), config.diffusion.training]:
        check_batch(section.batch_size, mesh, section.accumulate)
    for text in (*config.diffusion.tasks, *config.evaluation.tasks, *config.evaluation.examples_of):
        task = Task.parse(text)
        for name in (*task.given, *task.generated):
            if name not in config.tokenizers:
                raise UserError(f'task "{text}" names "{name}", which has no tokenizer; the config has '
                                f'{", ".join(config.tokenizers)}.{nearest(name, config.tokenizers)}')
    for section in [*sections.values(), config.diffusion.training]:
        build_optimizer(section, section.steps)
    build_model(config, TokenLayout({name: _token_spec(config, name) for name in config.tokenizers}))
    if is_gaussian(config):
        check_gaussian(config)
    else:
        build_sampler(config, {})
        choose(WEIGHTINGS, config.diffusion.weighting, 'diffusion.weighting')
    for split in dict.fromkeys(('train', 'test', config.evaluation.split)):
        load(config.data, split, modalities=tuple(config.tokenizers))


def _token_spec(config: ConfigDict, modality: str) -> TokenSpec:
    """The layout of the tokens; the number of codes of a text is not known before its vocabulary is."""
    if modality in learned_modalities(config):
        return build_learned_tokenizer(config, modality).spec
    return TokenSpec((config.tokenizers[modality].length,), 2)


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

    `overrides` replace settings of `diffusion.sampler`. Raises UserError for an unknown one or a folder that is no
    workdir, CheckpointError when nothing has been trained yet.
    """
    workdir = Path(workdir)
    config = load_config(workdir)
    for name, value in overrides.items():
        if name not in config.diffusion.sampler:
            raise UserError(f'sampler setting "{name}" is unknown; it has {", ".join(config.diffusion.sampler)}')
        config.diffusion.sampler[name] = value
    params, tokenizers = diffusion_stage.restore(workdir, config)
    layout = TokenLayout({name: tokenizer.spec for name, tokenizer in tokenizers.items()})
    section = config.diffusion.sampler
    generator = Generator(build_model(config, layout), params, tokenizers, build_sampler(config, tokenizers),
                          section.guidance, section.batch_size)
    return generator, config
