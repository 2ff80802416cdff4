"""The bottleneck of a KL autoencoder (Kingma and Welling 2013, arXiv:1312.6114): continuous latents, no codes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.base import Quantized, check_latents, token_weights, weighted_mean
from vqdit.tokenizers.quantizers.identity import Continuous


class GaussianBottleneck(Continuous, nn.Module):
    """Latents [..., 2 width] are the means and log variances of normal vectors [..., width].

    Training draws; otherwise the mean is taken.

    Attributes:
        width: of the vectors.
        divergence: weight of KL(posterior, standard normal), in nats per token: a sum over `width`, a mean over tokens.
            (The 1e-6 of latent diffusion weighs a sum over the tokens too.)

    Raises UserError for training without a key.
    """

    width: int = 4
    divergence: float = 1e-3

    @property
    def dimension(self) -> int:
        return 2 * self.width

    def __call__(self, z: jax.Array, *, train: bool = False, mask: jax.Array | None = None,
                 key: jax.Array | None = None) -> Quantized:
        mean, log_variance = jnp.split(check_latents(z, self.dimension, mask, train), 2, axis=-1)
        log_variance = jnp.clip(log_variance, -30.0, 20.0)
        vectors = mean
        if train:
            if key is None:
                raise UserError('training a GaussianBottleneck needs key=...; it draws the latents')
            vectors = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
        per_token = jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance, axis=-1) / 2
        divergence = weighted_mean(per_token.reshape(-1), token_weights(mean.shape[:-1], mask))
        return Quantized(vectors, self.no_codes(mean), self.divergence * divergence, {'divergence': divergence})
