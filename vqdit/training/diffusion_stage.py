"""The stage that trains the diffusion transformer on the token store, and what it takes to load it again.

Its checkpoints carry the frozen parameters of the tokenizers as a companion tree: outside the optimizer, the gradients
and the averages, and always the ones that the model was trained with.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from vqdit.data.batches import Batches
from vqdit.data.token_store import TokenStore
from vqdit.diffusion.clock import Task, TaskMixture
from vqdit.errors import CheckpointError, UserError
from vqdit.files import read_json, write_bytes
from vqdit.generation import Generator
from vqdit.generation.outputs import titled
from vqdit.generation.pictures import draw_table
from vqdit.models.multimodal import MultimodalDiT
from vqdit.tokenizers.frozen import FrozenTokenizer, Tokenizer
from vqdit.tokenizers.spec import TokenLayout
from vqdit.tokenizers.text import TextTokenizer
from vqdit.training.averages import Kept, decays, restored_parameters, sampling_parameters
from vqdit.training.checkpoint_reader import CheckpointReader
from vqdit.training.compilation import Step
from vqdit.training.factory import (
    build_learned_tokenizer,
    build_model,
    build_process,
    learned_modalities,
)
from vqdit.training.gaussian import build_space, extra_params, gaussian_loss, is_gaussian
from vqdit.training.gradients import reduce_dtype
from vqdit.training.keys import named_key
from vqdit.training.loop import Run, Stage, fit
from vqdit.training.objective import diffusion_loss
from vqdit.training.optimizers import build_optimizer
from vqdit.training.processes import to_host
from vqdit.training.sampling import build_generator, general
from vqdit.training.state import TrainState, Tree, create_state
from vqdit.training.steps import Loss, make_step

SHOWN = 8
"""Samples of every task in the pictures made during training."""


def train_diffusion(run: Run, tokenizers: Mapping[str, Tokenizer], layout: TokenLayout) -> TrainState:
    """Trains the model of the config on the tokens of the workdir."""
    config, workdir = run.config, Path(run.workdir)
    section = config.diffusion.training
    step, create = diffusion_step(config, layout, tokenizers)
    store = TokenStore(workdir / 'tokens', 'train')
    stage = Stage(
        name='diffusion', folder=str(workdir / 'diffusion'), section=section, step=step,
        batches=Batches(store, section.batch_size, config.seed),
        companions={'tokenizers': frozen_variables(tokenizers)},
        show=_shower(run, tokenizers, build_model(config, layout)), tokens=layout.length)
    return fit(stage, create, run)


def diffusion_step(config: ConfigDict, layout: TokenLayout, tokenizers: Mapping[str, Tokenizer] | None = None,
                   ) -> tuple[Step, Callable[[], TrainState]]:
    """The training step on batches `{'codes': int32 [B, N]}`, and what makes the state before the first.

    Without `tokenizers`, which come later, its cost is the same. Raises UserError for a process over vectors, which
    are the tokenizers'.
    """
    section = config.diffusion.training
    model, optimizer = build_model(config, layout), build_optimizer(section, section.steps)
    loss = _loss(config, model, tokenizers)
    further = decays(config)
    step = make_step(loss, optimizer, section.ema_decay, section.accumulate, further, reduce_dtype(section))
    return step, lambda: create_state(_init(model, config), optimizer, len(further))


def _loss(config: ConfigDict, model: MultimodalDiT, tokenizers: Mapping[str, Tokenizer] | None) -> Loss:
    mixture = TaskMixture(dict(config.diffusion.tasks), model.layout)
    if not is_gaussian(config):
        process = build_process(config, model.layout, tokenizers)
        return diffusion_loss(model, process, mixture, config.diffusion.weighting)
    if tokenizers is None:
        raise UserError('a Gaussian process needs the code vectors of trained tokenizers, which --compile_only has not')
    return gaussian_loss(model, build_space(config, model.layout, tokenizers), mixture, config)


def frozen_variables(tokenizers: Mapping[str, Tokenizer]) -> dict[str, Tree]:
    """The variables of the learned tokenizers."""
    return {name: tokenizer.variables for name, tokenizer in tokenizers.items()
            if isinstance(tokenizer, FrozenTokenizer)}


def restore(workdir: Path, config: ConfigDict) -> tuple[Tree, dict[str, Tokenizer]]:
    """The parameters to sample with and the tokenizers of the newest good diffusion checkpoint, on the host's devices.

    Raises CheckpointError when there is none.
    """
    learned = {name: build_learned_tokenizer(config, name) for name in learned_modalities(config)}
    shapes = {name: jax.eval_shape(tokenizer.init, jax.random.key(0)) for name, tokenizer in learned.items()}
    text = {name: TextTokenizer.from_json(_stored_text_tokenizer(workdir, name))
            for name in config.tokenizers if name not in learned}
    specs = {name: (text | learned)[name].spec for name in config.tokenizers}
    layout = TokenLayout(specs)
    model, section = build_model(config, layout), config.diffusion.training
    optimizer = build_optimizer(section, section.steps)
    state = jax.eval_shape(lambda: create_state(_init(model, config), optimizer, len(decays(config))))
    reader = CheckpointReader(workdir / 'diffusion' / 'checkpoints')
    found = reader.restore({'state': state, 'tokenizers': shapes})
    if found is None:
        raise CheckpointError(f'{workdir} has no trained diffusion model yet; run train.py with this workdir')
    frozen = {name: FrozenTokenizer(learned[name], jax.tree.map(np.asarray, variables))
              for name, variables in found.trees['tokenizers'].items()}
    params = restored_parameters(config, reader, state, found.trees['state'])
    return params, {name: (text | frozen)[name] for name in config.tokenizers}


def _init(model: MultimodalDiT, config: ConfigDict) -> Tree:
    variables = model.init(named_key(config.seed, 'diffusion, first parameters'), *model.blank(1))
    return {'params': variables['params'] | extra_params(config)}


def _stored_text_tokenizer(workdir: Path, modality: str) -> dict[str, Any]:
    path = workdir / 'tokenizers' / modality / 'tokenizer.json'
    if not path.exists():
        raise CheckpointError(f'{path} is missing; run train.py with this workdir')
    return read_json(path)


def _shower(run: Run, tokenizers: Mapping[str, Tokenizer], model: MultimodalDiT) -> Callable[[int, TrainState], None]:
    """A function that draws samples of the evaluation tasks, always from the same noise and conditions.

    All tasks together fill a batch of the size that the evaluation draws, so that one compiled program serves both.
    """
    config, folder = run.config, Path(run.workdir) / 'diffusion' / 'samples'
    store = TokenStore(Path(run.workdir) / 'tokens', 'test')
    codes = np.stack([store[i]['codes'] for i in range(min(SHOWN, len(store)))])
    tasks = [Task.parse(text) for text in config.evaluation.tasks or config.diffusion.tasks]
    batch_size = general(config)['batch_size']
    generator = build_generator(config, model, None, tokenizers, batch_size)
    rows = max(batch_size, len(tasks) * len(codes))
    all_codes = np.resize(codes, (rows, model.layout.length))
    all_roles = np.resize(np.repeat([task.roles(model.layout) for task in tasks], len(codes), axis=0), all_codes.shape)

    def show(step: int, state: TrainState) -> None:
        kept = Kept(step, to_host(state.averages))
        generator.params = sampling_parameters(config, to_host(state.ema), [kept])
        drawn = generator.fill(all_codes, all_roles)
        for task, made in zip(tasks, np.split(drawn[:len(tasks) * len(codes)], len(tasks))):
            path = folder / f'{step:07d}' / f'{str(task).replace("->", "_to_")}.png'
            write_bytes(path, draw_task(generator, task, codes, made))

    return show


def draw_task(generator: Generator, task: Task, codes: np.ndarray, made: np.ndarray) -> bytes:
    """A PNG of what is given, decoded from `codes int32 [B, N]`, next to what the generator `made` of it."""
    decode = {name: lambda c, name=name: generator.tokenizers[name].decode(c[:, generator.layout.slice(name)])
              for name in (*task.given, *task.generated)}
    table = titled(task, {n: decode[n](codes) for n in task.given}, {n: decode[n](made) for n in task.generated})
    picture = io.BytesIO()
    draw_table(table).save(picture, 'PNG')
    return picture.getvalue()
