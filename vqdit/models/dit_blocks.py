"""The blocks of the published image DiT: plain LayerNorm, attention with biases, a GELU network, adaLN-Zero."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.models.blocks import modulate

Implementation = Literal['xla', 'cudnn'] | None


def layer_norm(x: jax.Array) -> jax.Array:
    """(x - mean) / sqrt(variance + 1e-6) over the last axis, fp32 inside; [..., D] -> [..., D] (arXiv:1607.06450).

    The variance takes a second pass: E[x^2] - E[x]^2 loses all digits where the mean is large, and on a CPU its
    gradient is several times slower.
    """
    values = x.astype(jnp.float32)
    centred = values - jnp.mean(values, axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + 1e-6)).astype(x.dtype)


def attend(query: jax.Array, key: jax.Array, value: jax.Array, implementation: Implementation = None) -> jax.Array:
    """softmax(q k / sqrt(d)) v with fp32 logits; all [B, N, H, d].

    An implementation is one of `jax.nn.dot_product_attention`; None is plain matmuls with the heads in front, which a
    CPU multiplies fastest.
    """
    if implementation:
        return jax.nn.dot_product_attention(query, key, value, implementation=implementation)
    query, key, value = (jnp.swapaxes(part, 1, 2) for part in (query, key, value))
    logits = jnp.einsum('bhnd,bhmd->bhnm', query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits * query.shape[-1] ** -0.5).astype(value.dtype)
    return jnp.swapaxes(jnp.einsum('bhnm,bhmd->bhnd', weights, value), 1, 2)


def xavier_dense(size: int, dtype: jnp.dtype, name: str) -> nn.Module:
    return nn.Dense(size, kernel_init=nn.initializers.xavier_uniform(), dtype=dtype, name=name)


def zero_dense(size: int, dtype: jnp.dtype, name: str) -> nn.Module:
    return nn.Dense(size, kernel_init=nn.initializers.zeros, dtype=dtype, name=name)


def gelu(x: jax.Array) -> jax.Array:
    """The tanh form of GELU (arXiv:1606.08415, section 2), written with a sigmoid: 1 + tanh(u) = 2 sigmoid(2 u)."""
    return x * nn.sigmoid(np.sqrt(8 / np.pi).astype(x.dtype) * (x + 0.044715 * x**3))


class Attention(nn.Module):
    """Multi-head self-attention with biases; [B, N, D] -> [B, N, D]."""

    heads: int
    dtype: jnp.dtype = jnp.float32
    implementation: Implementation = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        qkv = nn.DenseGeneral((3, self.heads, width // self.heads), kernel_init=nn.initializers.xavier_uniform(),
                              dtype=self.dtype, name='qkv')(x)
        query, key, value = (qkv[:, :, part] for part in range(3))
        mixed = attend(query, key, value, self.implementation)
        return nn.DenseGeneral(width, axis=(-2, -1), kernel_init=nn.initializers.xavier_uniform(), dtype=self.dtype,
                               name='out')(mixed)


class MLP(nn.Module):
    """out(gelu(up(x))) with four times the width inside; [B, N, D] -> [B, N, D]."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        hidden = gelu(xavier_dense(4 * width, self.dtype, 'up')(x))
        return xavier_dense(width, self.dtype, 'out')(hidden)


class DiTBlock(nn.Module):
    """Attention and MLP, each modulated by the condition [B, D] and gated: adaLN-Zero, section 3.2.

    All modulation starts at zero, so that every block starts as the identity.
    """

    heads: int
    dtype: jnp.dtype = jnp.float32
    implementation: Implementation = None

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> tuple[jax.Array, None]:
        x = nn.with_logical_constraint(x, ('batch', 'tokens', 'width'))
        modulation = zero_dense(6 * x.shape[-1], self.dtype, 'modulation')(condition)[:, None]
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation, 6, axis=-1)
        attention = Attention(self.heads, self.dtype, self.implementation, name='attention')
        x = x + gate1 * attention(modulate(layer_norm(x), shift1, scale1))
        mlp = MLP(self.dtype, name='mlp')
        return x + gate2 * mlp(modulate(layer_norm(x), shift2, scale2)), None
