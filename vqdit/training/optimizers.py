"""The optimizer of a config, with warm-up, a schedule, clipping, and decay on matrices only: AdamW or Muon."""

import re

import jax
import ml_collections
import optax
from optax.contrib import MuonDimensionNumbers, muon

from vqdit.errors import UserError, nearest
from vqdit.training.state import Tree


def learning_rate(config: ml_collections.ConfigDict, steps: int) -> optax.Schedule:
    """Linear warm-up to `config.learning_rate`, then `config.schedule`: "cosine" to zero, or "constant"."""
    warmup = min(config.warmup_steps, max(steps - 1, 0))
    # A warm-up of no steps would stay at its first value for ever.
    first = 0.0 if warmup else config.learning_rate
    if config.schedule == 'cosine':
        return optax.warmup_cosine_decay_schedule(first, config.learning_rate, warmup, steps)
    if config.schedule == 'constant':
        return optax.warmup_constant_schedule(first, config.learning_rate, warmup)
    known = ('cosine', 'constant')
    raise UserError(f'schedule "{config.schedule}" is unknown; choose one of {", ".join(known)}.'
                    f'{nearest(config.schedule, known)}')


def is_matrix(params: Tree) -> Tree:
    """True for weights that decay: kernels of two or more axes, but not embeddings, norms, biases or tables."""
    def decays(path, leaf) -> bool:
        return leaf.ndim >= 2 and path[-1].key == 'kernel'
    return jax.tree_util.tree_map_with_path(decays, params)


def build_optimizer(config: ml_collections.ConfigDict, steps: int) -> optax.GradientTransformation:
    """What `config.optimizer` names, after clipping by global norm. Raises UserError for a setting that cannot be."""
    if config.learning_rate <= 0 or steps < 1:
        raise UserError(f'learning_rate {config.learning_rate} and steps {steps} must be positive')
    if config.optimizer not in OPTIMIZERS:
        raise UserError(f'optimizer "{config.optimizer}" is unknown; choose one of {", ".join(OPTIMIZERS)}.'
                        f'{nearest(config.optimizer, OPTIMIZERS)}')
    rate = learning_rate(config, steps)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), OPTIMIZERS[config.optimizer](config, rate))


def _adamw(config: ml_collections.ConfigDict, rate: optax.Schedule) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
    return optax.adamw(rate, b1=config.beta1, b2=config.beta2, weight_decay=config.weight_decay, mask=is_matrix)


def _muon(config: ml_collections.ConfigDict, rate: optax.Schedule) -> optax.GradientTransformation:
    """Muon (Jordan et al. 2024) for the matrices between hidden layers, AdamW for everything else.

    Its steps are scaled to the size of AdamW's, so that both share one learning rate (Liu et al. 2025,
    arXiv:2502.16982, section 2.2).
    """
    matrices = muon(rate, ns_steps=4, weight_decay=config.weight_decay, consistent_rms=0.2,
                    muon_weight_dimension_numbers=hidden_matrices)
    return optax.partition({'muon': matrices, 'adamw': _adamw(config, rate)}, _labels)


def _labels(params: Tree) -> Tree:
    axes = hidden_matrices(params)
    return jax.tree.map(lambda _, found: 'adamw' if found is None else 'muon', params, axes)


OPTIMIZERS = {'adamw': _adamw, 'muon': _muon}

HIDDEN_MATRICES = (
    (r'blocks/(\w+/)?attention/qkv/kernel', 1, 3),
    (r'blocks/(\w+/)?attention/out/kernel', 2, 1),
    (r'blocks/(\w+/)?mlp/(gate_up|up|out)/kernel', 1, 1),
    (r'ResidualBlock_\d+/Dense_0/kernel', 1, 1),
    (r'ResidualBlock_\d+/.*Conv_\d+/kernel', None, 1),
)
"""Path patterns, and how many of the last axes of a kernel are its inputs (None: all) and its outputs."""


def hidden_matrices(params: Tree) -> Tree:
    """MuonDimensionNumbers for the kernels that are matrices of hidden layers, None for all else.

    Axes in front are a stack of matrices.
    """
    def find(path, leaf) -> MuonDimensionNumbers | None:
        name = '/'.join(key.key for key in path)
        for pattern, inputs, outputs in HIDDEN_MATRICES:
            if re.search(pattern, name):
                split = leaf.ndim - outputs
                first = 0 if inputs is None else split - inputs
                return MuonDimensionNumbers(tuple(range(first, split)), tuple(range(split, leaf.ndim)))
        return None
    return jax.tree_util.tree_map_with_path(find, params)
