"""Gumbel-softmax quantization (Jang et al. 2016, arXiv:1611.01144; dVAE of DALL-E, arXiv:2102.12092).

A linear map of the latent gives the posterior over codes. Training draws from it, with the gradient of the relaxed
sample; the Kullback-Leibler divergence to the uniform prior is that of the VQ-VAE's bound (arXiv:1711.00937, eq. 2),
where a deterministic posterior makes it the constant log K.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.base import (
    HIGHEST,
    OneCode,
    Quantized,
    check_latents,
    check_num_codes,
    known_codes,
    token_weights,
    usage_metrics,
    weighted_mean,
)
from vqdit.tokenizers.quantizers.estimators import carry
from vqdit.tokenizers.quantizers.schedule import Schedule, Scheduled


class GumbelQuantizer(OneCode, nn.Module):
    """`num_codes` vectors of `dimension`, drawn when training and the most likely one otherwise.

    Attributes:
        temperature: of the relaxed sample, or a function of the training steps taken.
        divergence: weight of KL(posterior, uniform), in nats per token.

    Raises UserError for fewer than 2 codes, and for training without a key.
    """

    num_codes: int = 1024
    dimension: int = 32
    temperature: Schedule = 1.0
    divergence: float = 5e-4

    def __post_init__(self):
        check_num_codes(self.num_codes)
        super().__post_init__()

    def setup(self):
        self.temperature_now = Scheduled(self.temperature)
        self.posterior = nn.Dense(self.num_codes, precision=HIGHEST)
        self.codes = self.param('codes', nn.initializers.normal(1.0), (self.num_codes, self.dimension))

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        z = check_latents(z, self.dimension, mask, train)
        logits = self.posterior(z)
        noisy = logits + self._noise(logits.shape, key) if train else logits
        codes = jnp.argmax(noisy, axis=-1)
        relaxed = jax.nn.softmax(noisy / self.temperature_now(train), axis=-1)
        vectors = carry(self.codes[codes], jnp.matmul(relaxed, self.codes, precision=HIGHEST))
        codes = known_codes(z, codes)
        divergence = self._divergence(logits, token_weights(codes.shape, mask))
        metrics = {'divergence': divergence} | usage_metrics(codes, self.num_codes, mask)
        return Quantized(vectors, codes[..., None], self.divergence * divergence, metrics)

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Code vectors fp32 [..., dimension] of codes int32 [..., 1]."""
        return self.codes[codes[..., 0]]

    def _noise(self, shape: tuple[int, ...], key: jax.Array | None) -> jax.Array:
        if key is None:
            raise UserError('training a GumbelQuantizer needs key=...; it draws the codes')
        return jax.random.gumbel(key, shape, jnp.float32)

    def _divergence(self, logits: jax.Array, weights: jax.Array) -> jax.Array:
        logs = jax.nn.log_softmax(logits, axis=-1)
        return weighted_mean(jnp.log(self.num_codes) + jnp.sum(jnp.exp(logs) * logs, axis=-1).reshape(-1), weights)
