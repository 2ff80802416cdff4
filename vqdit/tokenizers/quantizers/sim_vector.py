"""SimVQ (Zhu et al. 2024, arXiv:2411.02038): a frozen random codebook under one learned linear map.

A step moves the map, and with it all codes at once, the unused ones too.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.tokenizers.quantizers.base import HIGHEST, mean_square
from vqdit.tokenizers.quantizers.codebooks import Codebook, Decay
from vqdit.tokenizers.quantizers.metrics import Euclidean, Metric
from vqdit.tokenizers.quantizers.starts import Start
from vqdit.tokenizers.quantizers.vector import VectorQuantizer


class LinearCodebook(nn.Module):
    """Codes are rows of a frozen normal matrix [K, D] times a learned one [D, D]; nothing starts and nothing dies.

    Attributes:
        weight: of the mean square of code less token.
    """

    num_codes: int
    dimension: int
    decay: Decay
    dead_share: float
    start: Start
    metric: Metric
    weight: float = 1.0

    def setup(self):
        def draw() -> jax.Array:
            size = self.dimension**-0.5
            return size * jax.random.normal(self.make_rng('params'), (self.num_codes, self.dimension))

        self.frozen = self.variable('codebook', 'frozen', draw)
        self.map = self.param('map', nn.initializers.lecun_normal(), (self.dimension, self.dimension))

    def vectors(self) -> jax.Array:
        """fp32 [K, D]."""
        return self.metric.values(jnp.matmul(self.frozen.value, self.map, precision=HIGHEST))

    def begin(self, flat: jax.Array, weights: jax.Array, key: jax.Array) -> None:
        pass

    def observe(self, flat: jax.Array, codes: jax.Array, weights: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
        return {}

    def loss(self, z: jax.Array, quantized: jax.Array, weights: jax.Array) -> jax.Array:
        return self.weight * mean_square(quantized, jax.lax.stop_gradient(z), weights)


class SimVectorQuantizer(VectorQuantizer):
    """A `VectorQuantizer` with a `LinearCodebook`."""

    metric: Metric = Euclidean()
    codebook: Callable[..., Codebook] = LinearCodebook
