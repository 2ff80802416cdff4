"""Index backpropagation quantization (Shi et al. 2024, IBQ, arXiv:2412.02692): every code gets a gradient.

The code is the largest of the products z . e; the gradient is that of softmax(z . e) over all codes, so the backward
pass holds [tokens, K] numbers: a price that buys codebooks which do not die.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.tokenizers.quantizers.base import (
    HIGHEST,
    OneCode,
    Quantized,
    check_latents,
    check_num_codes,
    known_codes,
    mean_square,
    token_weights,
    usage_metrics,
    weighted_mean,
)
from vqdit.tokenizers.quantizers.estimators import carry


class IndexBackpropQuantizer(OneCode, nn.Module):
    """`num_codes` learned vectors of `dimension`, compared by the inner product.

    Attributes:
        commitment: weight of the loss that draws the encoder to its code.
        entropy: weight of the entropy of the tokens less that of the batch.
        temperature: of the softmax in the entropies.

    Raises UserError for fewer than 2 codes.
    """

    num_codes: int = 1024
    dimension: int = 32
    commitment: float = 0.25
    entropy: float = 0.05
    temperature: float = 0.01

    def __post_init__(self):
        check_num_codes(self.num_codes)
        super().__post_init__()

    def setup(self):
        self.codes = self.param('codes', nn.initializers.normal(self.dimension**-0.5),
                                (self.num_codes, self.dimension))

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        z = check_latents(z, self.dimension, mask, train)
        weights = token_weights(z.shape[:-1], mask)
        logits = jnp.matmul(z.reshape(-1, self.dimension), self.codes.T, precision=HIGHEST)
        codes = jnp.argmax(logits, axis=-1).reshape(z.shape[:-1])
        chosen = self.codes[codes]
        vectors = self._with_all_gradients(chosen, logits)
        still = jax.lax.stop_gradient
        loss = (mean_square(vectors, z, weights) + self.commitment * mean_square(z, still(chosen), weights)
                + mean_square(chosen, still(z), weights))
        entropy, metrics = self._entropies(logits / self.temperature, weights)
        codes = known_codes(z, codes)
        metrics |= usage_metrics(codes, self.num_codes, mask)
        return Quantized(vectors, codes[..., None], loss + self.entropy * entropy, metrics)

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Code vectors fp32 [..., dimension] of codes int32 [..., 1]."""
        return self.codes[codes[..., 0]]

    def _with_all_gradients(self, chosen: jax.Array, logits: jax.Array) -> jax.Array:
        """`chosen` itself, with its own gradient and that of the mean of all codes under softmax(logits)."""
        soft = jnp.matmul(jax.nn.softmax(logits, axis=-1), jax.lax.stop_gradient(self.codes), precision=HIGHEST)
        return carry(chosen, chosen + soft.reshape(chosen.shape))

    def _entropies(self, logits: jax.Array, weights: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        logs = jax.nn.log_softmax(logits, axis=-1)
        probabilities = jnp.exp(logs)
        token = weighted_mean(-jnp.sum(probabilities * logs, axis=-1), weights)
        mean = jnp.sum(probabilities * weights[:, None], axis=0) / jnp.maximum(weights.sum(), 1.0)
        batch = -jnp.sum(mean * jnp.log(mean + 1e-20))
        return token - batch, {'token_entropy': token, 'batch_entropy': batch}
