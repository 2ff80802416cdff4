"""The parts of the transformer: norms, rotary positions, attention, SwiGLU, and modulation by the clock."""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class RootMeanSquareNorm(nn.Module):
    """x / sqrt(mean(x^2)) with a learned scale, in fp32 inside (arXiv:1910.07467); [..., D] -> [..., D]."""

    scaled: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        values = x.astype(jnp.float32)
        values = values * jax.lax.rsqrt(jnp.mean(values**2, axis=-1, keepdims=True) + 1e-6)
        if self.scaled:
            scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
            values = values * scale.reshape((1,) * (x.ndim - 1) + (-1,))
        return values.astype(x.dtype)


def rotary_angles(positions: np.ndarray, head_dim: int, base: float = 100.0) -> np.ndarray:
    """Angles fp32 [N, head_dim / 2] of position ids int32 [N, A]: the frequencies are dealt out to the axes.

    N-axis rotary embedding (RoFormer, arXiv:2104.09864; axes as in Flux). Axes that are 0 everywhere get none.
    """
    used = [axis for axis in range(positions.shape[1]) if positions[:, axis].any()] or [0]
    half = head_dim // 2
    owner = np.arange(half) % len(used)
    place = np.arange(half) // len(used)
    frequency = base ** (-place / max(place.max(), 1))
    return (positions[:, used][:, owner] * frequency[None]).astype(np.float32)


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Turns pairs of channels of `x [B, N, H, D]` by `angles [N, D / 2]`."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = jnp.cos(angles)[None, :, None], jnp.sin(angles)[None, :, None]
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1).astype(x.dtype)


class Attention(nn.Module):
    """Joint self-attention with normalised queries and keys; [B, N, D] -> [B, N, D]."""

    heads: int
    dtype: jnp.dtype = jnp.float32
    implementation: Literal['xla', 'cudnn'] | None = None

    @nn.compact
    def __call__(self, x: jax.Array, angles: jax.Array) -> jax.Array:
        width = x.shape[-1]
        qkv = nn.DenseGeneral((3, self.heads, width // self.heads), use_bias=False, dtype=self.dtype, name='qkv')(x)
        query, key, value = (part[:, :, 0] for part in jnp.split(qkv, 3, axis=2))
        query = rotate(RootMeanSquareNorm(name='query_norm')(query), angles)
        key = rotate(RootMeanSquareNorm(name='key_norm')(key), angles)
        mixed = jax.nn.dot_product_attention(query, key, value, implementation=self.implementation)
        return nn.DenseGeneral(width, axis=(-2, -1), use_bias=False, dtype=self.dtype, name='out')(mixed)


class SwiGLU(nn.Module):
    """out(silu(gate(x)) * up(x)) (Shazeer 2020, arXiv:2002.05202); [B, N, D] -> [B, N, D]."""

    hidden: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        both = nn.Dense(2 * self.hidden, use_bias=False, dtype=self.dtype, name='gate_up')(x)
        gate, up = jnp.split(both, 2, axis=-1)
        return nn.Dense(x.shape[-1], use_bias=False, dtype=self.dtype, name='out')(nn.silu(gate) * up)


def clock_features(clock: jax.Array, count: int = 64) -> jax.Array:
    """Cosines and sines of the clock [B, N] at `count / 2` frequencies up to 1000, fp32 [B, N, count]."""
    frequencies = np.exp(np.linspace(0.0, np.log(1000.0), count // 2)).astype(np.float32)
    angles = clock[..., None] * frequencies[None, None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def modulate(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    return x * (1.0 + scale) + shift


class Block(nn.Module):
    """Attention and SwiGLU, each modulated by the clock and gated.

    `modulation [B, N, 6 D]` comes from one network shared by all blocks (adaLN-single, PixArt-alpha,
    arXiv:2310.00426); a block adds a table of its own. Gates start at `gate`: at zero every block starts as the
    identity (adaLN-Zero, arXiv:2212.09748), which keeps deep stacks stable; above it a short training starts faster.
    """

    heads: int
    hidden: int
    gate: float = 0.0
    dtype: jnp.dtype = jnp.float32
    implementation: Literal['xla', 'cudnn'] | None = None

    @nn.compact
    def __call__(self, x: jax.Array, modulation: jax.Array, angles: jax.Array) -> tuple[jax.Array, None]:
        table = self.param('modulation_table', self._table, (modulation.shape[-1],))
        x = nn.with_logical_constraint(x, ('batch', 'tokens', 'width'))
        parts = jnp.split(modulation + table[None, None].astype(x.dtype), 6, axis=-1)
        shift1, scale1, gate1, shift2, scale2, gate2 = parts
        norm = RootMeanSquareNorm(scaled=False)
        attention = Attention(self.heads, self.dtype, self.implementation, name='attention')
        x = x + gate1 * attention(modulate(norm(x), shift1, scale1), angles)
        mlp = SwiGLU(self.hidden, self.dtype, name='mlp')
        return x + gate2 * mlp(modulate(norm(x), shift2, scale2)), None

    def _table(self, key: jax.Array, shape: tuple[int]) -> jax.Array:
        gates = jnp.asarray([0.0, 0.0, self.gate, 0.0, 0.0, self.gate])
        return jnp.repeat(gates, shape[0] // 6)


REMAT_POLICIES: Sequence[str] = ('none', 'full', 'dots')


def stack_of_blocks(depth: int, remat: str, unroll: int = 1, block: type[nn.Module] = Block, **options) -> nn.Module:
    """`depth` blocks under one `lax.scan`, `unroll` of them in an iteration; all share the arguments after `x`.

    `remat` says what the backward pass computes again: "none" keeps all activations, "full" keeps only block inputs,
    "dots" keeps matmul results.
    """
    if remat != 'none':
        policies = jax.checkpoint_policies
        policy = policies.nothing_saveable if remat == 'full' else policies.dots_with_no_batch_dims_saveable
        block = nn.remat(block, policy=policy, prevent_cse=False)
    scanned = nn.scan(block, variable_axes={'params': 0}, split_rngs={'params': True}, length=depth,
                      in_axes=nn.broadcast, unroll=unroll)
    return scanned(**options, name='blocks')
