"""The training of one tokenizer as its config describes it: the step, and the state before the first one."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from vqdit.errors import CheckpointError, UserError
from vqdit.tokenizers.frozen import FrozenTokenizer, LearnedTokenizer
from vqdit.training import passes
from vqdit.training.adversarial import create_adversarial_state, make_adversarial_step
from vqdit.training.adversary import build_adversary
from vqdit.training.checkpoint_reader import CheckpointReader
from vqdit.training.factory import build_learned_tokenizer
from vqdit.training.objective import tokenizer_loss
from vqdit.training.optimizers import build_optimizer
from vqdit.training.processes import to_host
from vqdit.training.state import TrainState, Tree, create_state
from vqdit.training.steps import Metrics, make_step
from vqdit.training.workdir import load_config


class Training(NamedTuple):
    """`step(state, batch, root key) -> (state, metrics)`, and `create(variables, key) -> state` before it."""

    step: Callable[[Any, Any, jax.Array], tuple[Any, Metrics]]
    create: Callable[[Tree, jax.Array], TrainState]


def build_training(config: ConfigDict, modality: str, tokenizer: LearnedTokenizer) -> Training:
    """The training of `config.tokenizers.<modality>`: of the whole, or of the decoder alone; with an adversary or not.

    Raises UserError for settings that cannot be.
    """
    section = config.tokenizers[modality]
    optimizer, adversary = build_optimizer(section.training, section.training.steps), build_adversary(config, modality)
    decay, parts = section.training.ema_decay, section.training.accumulate
    forward = passes.in_slices(parts) if parts > 1 else passes.whole
    if section.get('fine_tune'):
        optimizer, forward = passes.of_decoder(optimizer), passes.decoder_alone
    if adversary:
        return Training(make_adversarial_step(tokenizer, modality, adversary, optimizer, decay, forward),
                        functools.partial(create_adversarial_state, tokenizer, adversary, optimizer))
    loss = tokenizer_loss(tokenizer, modality, forward)
    # What has a codebook slices itself.
    return Training(make_step(loss, optimizer, decay, parts if forward is passes.decoder_alone else 1),
                    lambda variables, key: create_state(variables, optimizer))


def initial_variables(config: ConfigDict, modality: str, tokenizer: LearnedTokenizer) -> Callable[[jax.Array], Tree]:
    """What a training starts from, given a key: fresh variables, or those of the workdir that `fine_tune` names.

    Raises UserError or CheckpointError where there is nothing of the same layout.
    """
    workdir = config.tokenizers[modality].get('fine_tune')
    if not workdir:
        return tokenizer.init
    variables = restore_tokenizer(workdir, modality).variables
    _check_layout(jax.eval_shape(tokenizer.init, jax.random.key(0)), variables, f'tokenizers.{modality}.fine_tune')
    return lambda key: variables


def freeze(tokenizer: LearnedTokenizer, state: TrainState) -> FrozenTokenizer:
    """The tokenizer with its averaged parameters and its codebook, on the host."""
    variables = {'params': state.ema} | ({'codebook': state.codebook} if state.codebook else {})
    return FrozenTokenizer(tokenizer, to_host(variables))


def restore_tokenizer(workdir: str | Path, modality: str) -> FrozenTokenizer:
    """The tokenizer of a workdir at its newest good checkpoint, which need not be its last.

    Raises UserError for a folder that is no workdir or has no such tokenizer, CheckpointError without a checkpoint.
    """
    config = load_config(workdir)
    if modality not in config.tokenizers:
        raise UserError(f'{workdir} has no tokenizer of "{modality}"; it has {", ".join(config.tokenizers)}')
    tokenizer = build_learned_tokenizer(config, modality)
    create, key = build_training(config, modality, tokenizer).create, jax.random.key(0)
    state = jax.eval_shape(lambda: create(tokenizer.init(key), key))
    found = CheckpointReader(Path(workdir) / 'tokenizers' / modality / 'checkpoints').restore({'state': state})
    if found is None:
        raise CheckpointError(f'{workdir} has no trained tokenizer of "{modality}" yet; run train.py with this workdir')
    return freeze(tokenizer, found.trees['state'])


def _check_layout(expected: Tree, found: Tree, setting: str) -> None:
    """Raises UserError when the leaves are others."""
    ours, theirs = ({jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}
                    for tree in (expected, found))
    for path in ours | theirs:
        if ours.get(path) != theirs.get(path):
            raise UserError(f'{setting}: {path} has shape {theirs.get(path)} there, but {ours.get(path)} here; '
                            'take over the tokenizer settings of its config')
