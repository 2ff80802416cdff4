"""What an image DiT is told beside its latents: a timestep and a label, and a context of text or other tokens."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def timestep_features(timesteps: jax.Array, count: int = 256, steps: int = 128) -> jax.Array:
    """Cosines, then sines, of timesteps [B] at `count / 2` frequencies, `steps` of which lead from 1 to 1e-4.

    fp32 [B, count]; Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    # The exponents are rounded to fp32 as in the networks that were published: timesteps of 999 magnify every digit.
    exponents = np.float32(-np.log(10_000)) * np.arange(count // 2, dtype=np.float32) / np.float32(steps)
    frequencies = np.exp(exponents, dtype=np.float64).astype(np.float32)
    angles = timesteps.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def drop_labels(key: jax.Array, labels: jax.Array, rate: float, null: int) -> jax.Array:
    """Labels int32 [B], each replaced by `null` at `rate`, so that one model learns with and without a condition."""
    return jnp.where(jax.random.bernoulli(key, rate, labels.shape), null, labels)


class VectorContext(nn.Module):
    """Vectors of a frozen encoder, such as T5, fp32 [B, M, C] -> [B, M, width]; they carry their positions."""

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, vectors: jax.Array) -> jax.Array:
        chex.assert_rank(vectors, 3)
        return nn.Dense(self.width, dtype=self.dtype, name='vectors')(vectors)


class CodeContext(nn.Module):
    """Codes of a tokenizer, of text or anything else, int32 [B, length] -> [B, length, width].

    The code `num_codes` stands for none, as in the tokens of a modality that is not given.
    """

    width: int
    num_codes: int
    length: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, codes: jax.Array) -> jax.Array:
        chex.assert_shape(codes, (None, self.length))
        start = nn.initializers.normal(0.02)
        table = nn.Embed(self.num_codes + 1, self.width, embedding_init=start, dtype=self.dtype, name='codes')
        places = self.param('places', start, (self.length, self.width))
        return table(codes) + places[None].astype(self.dtype)
