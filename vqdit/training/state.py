"""The one kind of training state, for tokenizers and diffusion alike."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

Tree = Any


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes.

    Attributes:
        step: int32, how many steps were taken, skipped ones included.
        params: fp32 parameters.
        opt_state: of the optimizer.
        ema: exponential moving average of `params`, fp32.
        codebook: the learned state of quantizers; empty for models that have none.
        skipped: int32, how many steps in a row were skipped because they were not finite.
        averages: further averages of `params`, fp32; see `averages`.
    """

    step: jax.Array
    params: Tree
    opt_state: Tree
    ema: Tree
    codebook: Tree
    skipped: jax.Array
    averages: tuple[Tree, ...]


def create_state(variables: Tree, optimizer: optax.GradientTransformation, averages: int = 0) -> TrainState:
    """The state before the first step of `variables` as `module.init` gives them, with so many further averages."""
    params = variables['params']
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params),
                      ema=jax.tree.map(jnp.array, params), codebook=variables.get('codebook', {}),
                      skipped=jnp.zeros((), jnp.int32),
                      averages=tuple(jax.tree.map(jnp.array, params) for _ in range(averages)))
