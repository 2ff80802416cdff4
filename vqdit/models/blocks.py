"""The blocks of the transformer: attention and a network, modulated by a condition and gated, in one stream or two."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.models.attention import Attention, Heads, Implementation, attend
from vqdit.models.parts import MODULATIONS, NETWORKS, NORMS, Parts, zero_dense


def clock_features(clock: jax.Array, count: int = 64) -> jax.Array:
    """Cosines and sines of the clock [B, N] at `count / 2` frequencies up to 1000, fp32 [B, N, count]."""
    frequencies = np.exp(np.linspace(0.0, np.log(1000.0), count // 2)).astype(np.float32)
    angles = clock[..., None] * frequencies[None, None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def modulate(x: jax.Array, shift: jax.Array | None, scale: jax.Array) -> jax.Array:
    scaled = x * (1.0 + scale)
    return scaled if shift is None else scaled + shift


class Block(nn.Module):
    """Attention and network, each modulated by the condition and gated; [B, N, D] -> [B, N, D].

    The condition [B, 1 or N, C] is what a layer of the block makes its modulation of, or with "shared" [..., 6 D] that
    modulation, to which the block adds a table. Gates start at `gate`, with a layer at zero: then every block starts as
    the identity (adaLN-Zero, arXiv:2212.09748), which keeps deep stacks stable; above it a short training starts
    faster.
    """

    width: int
    heads: int
    hidden: int
    parts: Parts
    gate: float = 0.0
    dtype: jnp.dtype = jnp.float32
    implementation: Implementation = None

    def setup(self) -> None:
        parts = self.parts
        if parts.modulation == 'shared':
            self.modulation_table = self.param('modulation_table', self._table, (6 * self.width,))
        else:
            self.modulation = zero_dense(MODULATIONS[parts.modulation] * self.width, self.dtype)
        self.norm1, self.norm2 = (NORMS[parts.norm](None) for _ in range(2))
        self.attention = Attention(self.width, self.heads, parts, self.dtype)
        self.mlp = NETWORKS[parts.network](self.hidden, parts.dense, self.dtype)

    def __call__(self, x: jax.Array, condition: jax.Array, angles: jax.Array | None) -> tuple[jax.Array, None]:
        x = nn.with_logical_constraint(x, ('batch', 'tokens', 'width'))
        heads, after = self.open(x, condition, angles)
        return self.close(x, attend(heads, self.implementation), after), None

    def open(self, x: jax.Array, condition: jax.Array, angles: jax.Array | None) -> tuple[Heads, Sequence[Any]]:
        """Queries, keys and values of tokens, and the modulation of what comes after attention."""
        shift, scale, *after = self._modulation(condition)
        return self.attention.open(modulate(self.norm1(x), shift, scale), angles), after

    def close(self, x: jax.Array, mixed: jax.Array, after: Sequence[Any]) -> jax.Array:
        """The tokens after attention [B, N, H, d], its gate and the network."""
        gate1, shift, scale, gate2 = after
        x = x + gate1 * self.attention.close(mixed)
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift, scale))

    def _modulation(self, condition: jax.Array) -> Sequence[Any]:
        """Shift, scale and gate of attention, then of the network."""
        if self.parts.modulation == 'shared':
            return jnp.split(condition + self.modulation_table[None, None].astype(condition.dtype), 6, axis=-1)
        parts = jnp.split(self.modulation(condition), MODULATIONS[self.parts.modulation], axis=-1)
        return parts if len(parts) == 6 else (None, *parts[:2], None, *parts[2:])

    def _table(self, key: jax.Array, shape: tuple[int]) -> jax.Array:
        gates = jnp.asarray([0.0, 0.0, self.gate, 0.0, 0.0, self.gate])
        return jnp.repeat(gates, shape[0] // 6)


class DoubleBlock(nn.Module):
    """Two streams with weights of their own that meet in attention (MMDiT, Esser et al. 2024, arXiv:2403.03206).

    `block` holds the options of both. The context [B, M, D] stands nowhere: it has no angles.
    """

    block: dict[str, Any]

    @nn.compact
    def __call__(self, streams: tuple[jax.Array, jax.Array], condition: jax.Array,
                 angles: jax.Array | None) -> tuple[tuple[jax.Array, jax.Array], None]:
        sides = [Block(**self.block, name=name) for name in ('image', 'context')]
        x, context = (nn.with_logical_constraint(stream, ('batch', 'tokens', 'width')) for stream in streams)
        opened = [side.open(stream, condition, turned)
                  for side, stream, turned in zip(sides, (x, context), (angles, None))]
        joint = [jnp.concatenate(pair, axis=1) for pair in zip(*(heads for heads, _ in opened))]
        mixed = jnp.split(attend((joint[0], joint[1], joint[2]), sides[0].implementation), [x.shape[1]], axis=1)
        x, context = (side.close(stream, part, after) for side, stream, part, (_, after) in
                      zip(sides, (x, context), mixed, opened))
        return (x, context), None


REMAT_POLICIES: Sequence[str] = ('none', 'full', 'dots')


def stack_of_blocks(depth: int, remat: str, unroll: int = 1, kind: type[nn.Module] = Block, name: str = 'blocks',
                    **options: Any) -> nn.Module:
    """`depth` blocks under one `lax.scan`, `unroll` of them in an iteration; all share the arguments after the first.

    `remat` says what the backward pass computes again: "none" keeps all activations, "full" keeps only block inputs,
    "dots" keeps matmul results.
    """
    if remat != 'none':
        policies = jax.checkpoint_policies
        policy = policies.nothing_saveable if remat == 'full' else policies.dots_with_no_batch_dims_saveable
        kind = nn.remat(kind, policy=policy, prevent_cse=False)
    scanned = nn.scan(kind, variable_axes={'params': 0}, split_rngs={'params': True}, length=depth,
                      in_axes=nn.broadcast, unroll=unroll)
    return scanned(**options, name=name)
