"""The optimizer of a config: AdamW with warm-up, a schedule, clipping, and decay on matrices only."""

import jax
import ml_collections
import optax

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
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) after clipping by global norm."""
    if config.learning_rate <= 0 or steps < 1:
        raise UserError(f'learning_rate {config.learning_rate} and steps {steps} must be positive')
    adamw = optax.adamw(learning_rate(config, steps), b1=config.beta1, b2=config.beta2,
                        weight_decay=config.weight_decay, mask=is_matrix)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
