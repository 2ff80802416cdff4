"""Exponential moving averages of parameters."""

import jax
import jax.numpy as jnp

from vqdit.training.state import Tree


def update_average(average: Tree, params: Tree, decay: float, step: jax.Array) -> Tree:
    """decay * average + (1 - decay) * params, in fp32, after the optimizer's step.

    The decay warms up as min(decay, (1 + step) / (10 + step)), so that the start is forgotten quickly.
    """
    warm = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: warm * a + (1 - warm) * p.astype(jnp.float32), average, params)
