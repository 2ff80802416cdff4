"""A codec whose tokens have no place in the data: each is the answer to a learned query (TiTok, arXiv:2406.07550).

    data [B, *size, C] -> patches, and N queries after them -> transformer -> the queries' places -> latents [B, N, D]
    vectors [B, N, D], and a learned blank for every patch before them -> transformer -> the blanks' places -> data

How many tokens there are is chosen freely: 32 to 128 say as much of an image of 256 px as 256 tokens on a grid do,
because each may say something of all of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.errors import UserError
from vqdit.folding import depth_to_space, space_to_depth
from vqdit.tokenizers.padding import complete, grid_of
from vqdit.tokenizers.ranges import Range, unbounded


@dataclass(frozen=True)
class QueryTrunk:
    """What encoder and decoder share.

    Attributes:
        size: of the data.
        patch: positions that make a place of the transformer, one number for each axis.
        queries: N, the tokens of an item.
        width: channels of the transformer, a multiple of `heads`.
        depth: its blocks, on either side.
        heads: of the attention.

    Raises UserError for numbers below 1 and a width that the heads cannot share.
    """

    size: tuple[int, ...]
    patch: tuple[int, ...]
    queries: int
    width: int
    depth: int
    heads: int

    def __post_init__(self) -> None:
        if min(*self.patch, self.queries, self.width, self.depth, self.heads) < 1 or self.width % self.heads:
            raise UserError(f'a query codec of patch={self.patch}, queries={self.queries}, width={self.width}, '
                            f'depth={self.depth} and heads={self.heads} cannot be: all must be positive, and the '
                            'width a multiple of the heads')

    @property
    def places(self) -> tuple[int, ...]:
        """The grid of the patches, the last ones completed."""
        return grid_of(self.size, self.patch)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); [B, N, D] -> [B, N, D]."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        x = x + nn.MultiHeadDotProductAttention(self.heads, normalize_qk=True)(nn.RMSNorm()(x))
        return x + nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(nn.RMSNorm()(x))))


class JointTransformer(nn.Module):
    """Two sequences [B, n, D] and [B, m, D] through blocks that see both; gives each back, normalised."""

    depth: int
    heads: int

    @nn.compact
    def __call__(self, places: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jnp.concatenate([places, tokens], axis=1)
        for _ in range(self.depth):
            x = TransformerBlock(self.heads)(x)
        x = nn.RMSNorm()(x)
        return x[:, :places.shape[1]], x[:, places.shape[1]:]


class QueryEncoder(nn.Module):
    """Data [B, *size, C] -> latents [B, queries, dimension]."""

    trunk: QueryTrunk
    dimension: int

    @nn.nowrap
    def grid(self, size: Sequence[int]) -> tuple[int, ...]:
        """(queries,), whatever the data holds. Raises UserError for data of another size."""
        if tuple(size) != self.trunk.size:
            raise UserError(f'data of size {tuple(size)} is not of the size {self.trunk.size} of this query codec')
        return (self.trunk.queries,)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        trunk = self.trunk
        chex.assert_shape(x, (None, *trunk.size, None))
        patches = space_to_depth(complete(x, trunk.patch), trunk.patch)
        places = nn.Dense(trunk.width)(patches.reshape(len(x), math.prod(trunk.places), -1))
        places = places + _learned(self, 'positions', math.prod(trunk.places), places)
        queries = _learned(self, 'queries', trunk.queries, places)
        _, answers = JointTransformer(trunk.depth, trunk.heads)(places, queries)
        return nn.Dense(self.dimension)(answers)


class QueryDecoder(nn.Module):
    """Code vectors [B, queries, D] -> data [B, *size, channels] with its last patches complete.

    Attributes:
        trunk: what is shared with the encoder.
        channels: of the data.
        bound: what is done to the data at last; see `ranges`.
    """

    trunk: QueryTrunk
    channels: int
    bound: Range = unbounded

    @nn.compact
    def __call__(self, vectors: jax.Array) -> jax.Array:
        trunk = self.trunk
        tokens = nn.Dense(trunk.width)(vectors)
        tokens = tokens + _learned(self, 'positions', trunk.queries, tokens)
        blanks = _learned(self, 'blanks', math.prod(trunk.places), tokens)
        places, _ = JointTransformer(trunk.depth, trunk.heads)(blanks, tokens)
        patches = nn.Dense(self.channels * math.prod(trunk.patch))(places)
        return self.bound(depth_to_space(patches.reshape(len(vectors), *trunk.places, -1), trunk.patch))


def _learned(module: nn.Module, name: str, count: int, like: jax.Array) -> jax.Array:
    """`count` learned vectors for every item, as wide as `like [B, N, D]`."""
    batch, _, width = like.shape
    vectors = module.param(name, nn.initializers.normal(0.5), (count, width))
    return jnp.broadcast_to(vectors[None], (batch, count, width))
