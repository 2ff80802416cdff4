"""Self-attention with rotary positions."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.models.parts import DENSE, FREQUENCIES, NORMS, Parts

Implementation = Literal['xla', 'cudnn'] | None
Heads = tuple[jax.Array, jax.Array, jax.Array]
"""Queries, keys and values, each [B, N, H, d]."""


def rotary_angles(positions: np.ndarray, head_dim: int, frequencies: str = 'pictures') -> np.ndarray:
    """Angles fp32 [N, head_dim / 2] of position ids int32 [N, A]: the `FREQUENCIES` are dealt out to the axes.

    N-axis rotary embedding (RoFormer, arXiv:2104.09864; axes as in Flux). Axes that are 0 everywhere get none.
    """
    used = [axis for axis in range(positions.shape[1]) if positions[:, axis].any()] or [0]
    owner, place = np.arange(head_dim // 2) % len(used), np.arange(head_dim // 2) // len(used)
    frequency = FREQUENCIES[frequencies](int(place.max()) + 1)[place]
    return (positions[:, used][:, owner] * frequency[None]).astype(np.float32)


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Turns pairs of channels of `x [B, N, H, D]` by `angles [N, D / 2]`."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = jnp.cos(angles)[None, :, None], jnp.sin(angles)[None, :, None]
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1).astype(x.dtype)


def attend(heads: Heads, implementation: Implementation = None) -> jax.Array:
    """softmax(q k / sqrt(d)) v with fp32 logits; [B, N, H, d].

    An implementation is one of `jax.nn.dot_product_attention`; None is plain matmuls with the heads in front, which a
    CPU multiplies fastest.
    """
    if implementation:
        return jax.nn.dot_product_attention(*heads, implementation=implementation)
    query, key, value = (jnp.swapaxes(part, 1, 2) for part in heads)
    logits = jnp.einsum('bhnd,bhmd->bhnm', query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits * query.shape[-1] ** -0.5).astype(value.dtype)
    return jnp.swapaxes(jnp.einsum('bhnm,bhmd->bhnd', weights, value), 1, 2)


class Attention(nn.Module):
    """The ends of multi-head self-attention: tokens to heads, which may meet those of other tokens, and back."""

    width: int
    heads: int
    parts: Parts
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        options = {'dtype': self.dtype, **DENSE[self.parts.dense]}
        self.qkv = nn.DenseGeneral((3, self.heads, self.width // self.heads), **options)
        self.query_norm, self.key_norm = (NORMS[self.parts.query_norm](None) for _ in range(2))
        self.out = nn.DenseGeneral(self.width, axis=(-2, -1), **options)

    def open(self, x: jax.Array, angles: jax.Array | None = None) -> Heads:
        """Of tokens [B, N, D]; queries and keys are turned by angles [N, d / 2], if there are any."""
        qkv = self.qkv(x)
        query, key, value = (qkv[:, :, part] for part in range(3))
        query, key = self.query_norm(query), self.key_norm(key)
        return (query, key, value) if angles is None else (rotate(query, angles), rotate(key, angles), value)

    def close(self, mixed: jax.Array) -> jax.Array:
        """[B, N, H, d] -> [B, N, D]."""
        return self.out(mixed)
