"""Numbers that may follow the training steps of a quantizer."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

Schedule = float | Callable[[jax.Array], jax.Array]
"""A number, or a pure function of the number of training steps taken before, such as those of optax."""


class Scheduled(nn.Module):
    """The value of a schedule now; where it needs the steps, they are counted in the `codebook` collection."""

    value: Schedule

    @nn.compact
    def __call__(self, train: bool) -> jax.Array | float:
        if not callable(self.value):
            return self.value
        steps = self.variable('codebook', 'steps', jnp.zeros, (), jnp.int32)
        now = self.value(steps.value)
        if train:
            steps.value = steps.value + 1
        return now
