"""What an autoencoder does to its output at last."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Range = Callable[[jax.Array], jax.Array]


def unbounded(x: jax.Array) -> jax.Array:
    """`x` as it is."""
    return x


RANGES: dict[str, Range] = {'unbounded': unbounded, 'tanh': jnp.tanh}
"""By name: any number, or within [-1, 1], as the data is."""
