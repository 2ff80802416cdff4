"""The diffusion transformer for images, DiT (Peebles & Xie 2023, arXiv:2212.09748), of published and of other parts."""

import math
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.folding import depth_to_space, space_to_depth
from vqdit.models.attention import Implementation, rotary_angles
from vqdit.models.blocks import REMAT_POLICIES, DoubleBlock, modulate, stack_of_blocks
from vqdit.models.conditions import timestep_features
from vqdit.models.parts import HIDDEN, NORMS, Parts, zero_dense


def sine_cosine_positions(grid: tuple[int, int], width: int) -> np.ndarray:
    """fp32 [N, D] of a grid in row-major order: one half of the channels tells the column, the other the row.

    Each half holds the sines, then the cosines, of the index at D / 4 frequencies from 1 down to 1e-4.
    """
    rows, columns = np.indices(grid).reshape(2, -1)
    frequencies = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
    halves = [index[:, None] * frequencies[None] for index in (columns, rows)]
    return np.concatenate([wave(half) for half in halves for wave in (np.sin, np.cos)], axis=1).astype(np.float32)


class DiT(nn.Module):
    """`(latents [B, H, W, C], timesteps fp32 [B], labels int32 [B]) -> fp32 [B, H, W, out_channels]`.

    A network of strides is told two numbers, timesteps fp32 [B, 2]: where a stride begins, and how long it is. One with
    a context takes it as a fourth argument; its tokens stand beside those of the latents.

    Attributes:
        size: H and W of the latents.
        channels: C of the latents.
        out_channels: of the prediction; twice C where the variance is learned too (its second half).
        patch: side of the blocks of latents that become one token.
        width, depth, heads: of the trunk.
        hidden: of the networks in the blocks; None for as many weights as 4 times the width gives those of GELU.
        parts: of the blocks.
        registers: learned tokens beside those of the latents, as room for the trunk's own notes (arXiv:2309.16588).
        classes: how many labels there are; the label `classes` stands for none (classifier-free guidance).
        context: what embeds a context, a module of `conditions`; None for a network without.
        double_depth: how many of the first blocks have weights of their own for the context.
        strides: whether it is a network of strides.
        frequency_steps: of the timestep features, see `conditions.timestep_features`; 127 in diffusers.
        remat: what the backward pass computes again; see `blocks.stack_of_blocks`.
        unroll: blocks in one iteration of the scan over the depth.
        dtype: of the computation; parameters, norms, timestep features and the result are fp32.
        implementation: of the attention, see `attention.attend`.

    Raises UserError when the heads do not divide the width, or into odd heads that cannot be turned, the width is no
    multiple of 4, the patch does not divide the size, remat is unknown, blocks are doubled that are not there or have
    no context, and when it is called without the context that it has or with one that it has not.
    """

    size: tuple[int, int] = (32, 32)
    channels: int = 4
    out_channels: int = 8
    patch: int = 2
    width: int = 1152
    depth: int = 28
    heads: int = 16
    hidden: int | None = None
    parts: Parts = Parts()
    registers: int = 0
    classes: int = 1000
    context: nn.Module | None = None
    double_depth: int = 0
    strides: bool = False
    frequency_steps: int = 128
    remat: str = 'none'
    unroll: int = 1
    dtype: jnp.dtype = jnp.float32
    implementation: Implementation = None

    def __post_init__(self):
        if self.width % self.heads or self.width % 4:
            raise UserError(f'width {self.width} must be divisible by the {self.heads} heads, and by 4 for positions')
        if self.parts.positions != 'table' and self.width // self.heads % 2:
            raise UserError(f'heads of {self.width // self.heads} channels cannot be turned in pairs; choose heads '
                            f'that divide the width {self.width} into even parts, or positions "table"')
        if any(side % self.patch for side in self.size):
            raise UserError(f'the patch {self.patch} does not divide the size {tuple(self.size)} of the latents')
        if self.remat not in REMAT_POLICIES:
            raise UserError(f'remat "{self.remat}" is unknown; choose one of {", ".join(REMAT_POLICIES)}')
        if self.double_depth and (self.context is None or not 0 < self.double_depth < self.depth):
            raise UserError(f'double_depth {self.double_depth} needs a context and a depth above it, not {self.depth}')
        super().__post_init__()

    @nn.compact
    def __call__(self, latents: jax.Array, timesteps: jax.Array, labels: jax.Array,
                 context: jax.Array | None = None) -> jax.Array:
        if (context is None) != (self.context is None):
            raise UserError(f'a network {"without" if self.context is None else "with"} a context is given '
                            f'{"none" if context is None else "one"}; set the attribute context to what embeds it')
        chex.assert_shape(latents, (None, *self.size, self.channels))
        chex.assert_shape(labels, latents.shape[:1])
        chex.assert_shape(timesteps, (*latents.shape[:1], *(2,) * self.strides))
        condition = nn.silu(self._condition(timesteps, labels))[:, None]
        x = self._trunk(self._embed(latents), condition, context)
        shift, scale = jnp.split(zero_dense(2 * self.width, self.dtype, 'modulation')(condition), 2, axis=-1)
        x = modulate(NORMS[self.parts.norm]('norm')(x), shift, scale)
        x = zero_dense(self.patch**2 * self.out_channels, self.dtype, 'head')(x)
        return depth_to_space(x.reshape(-1, *self.grid, x.shape[-1]), (self.patch,) * 2).astype(jnp.float32)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.size[0] // self.patch, self.size[1] // self.patch

    def _embed(self, latents: jax.Array) -> jax.Array:
        """Tokens [B, N, D]: patches, and a fixed table of positions that no gradient reaches."""
        patches = space_to_depth(latents, (self.patch,) * 2)
        dense = nn.Dense(self.width, kernel_init=nn.initializers.xavier_uniform(), dtype=self.dtype, name='patches')
        x = dense(patches.reshape(patches.shape[0], -1, patches.shape[-1]))
        if self.parts.positions == 'rotary':
            return x
        table = self.param('positions', lambda _: jnp.asarray(sine_cosine_positions(self.grid, self.width)))
        return x + jax.lax.stop_gradient(table)[None].astype(self.dtype)

    def _trunk(self, x: jax.Array, condition: jax.Array, context: jax.Array | None) -> jax.Array:
        """[B, N, D] -> [B, N, D]; the sequence is tokens, registers, context."""
        places = x.shape[1]
        if self.parts.modulation == 'shared':
            condition = zero_dense(6 * self.width, self.dtype, 'shared_modulation')(condition)
        if self.registers:
            notes = self.param('registers', nn.initializers.normal(0.02), (self.registers, self.width))
            x = jnp.concatenate([x, jnp.broadcast_to(notes.astype(self.dtype), (len(x), *notes.shape))], axis=1)
        block: dict[str, Any] = {'width': self.width, 'heads': self.heads, 'hidden': self._hidden(),
                                 'parts': self.parts, 'dtype': self.dtype, 'implementation': self.implementation}
        if self.context is not None:
            told = self.context(context)
            if self.double_depth:
                doubled = stack_of_blocks(self.double_depth, self.remat, 1, DoubleBlock, 'double_blocks', block=block)
                (x, told), _ = doubled((x, told), condition, self._angles(x.shape[1]))
            x = jnp.concatenate([x, told], axis=1)
        blocks = stack_of_blocks(self.depth - self.double_depth, self.remat, self.unroll, **block)
        x, _ = blocks(x, condition, self._angles(x.shape[1]))
        return x[:, :places]

    def _angles(self, length: int) -> jax.Array | None:
        """Of rotary positions, fp32 [length, d / 2]; what follows the tokens stands nowhere."""
        if self.parts.positions == 'table':
            return None
        places = np.zeros((length, 2), np.int32)
        places[:math.prod(self.grid)] = np.indices(self.grid).reshape(2, -1).T
        return jnp.asarray(rotary_angles(places, self.width // self.heads, self.parts.frequencies))

    def _hidden(self) -> int:
        return self.hidden or int(self.width * HIDDEN[self.parts.network])

    def _condition(self, timesteps: jax.Array, labels: jax.Array) -> jax.Array:
        def dense(name: str) -> nn.Module:
            return nn.Dense(self.width, kernel_init=nn.initializers.normal(0.02), dtype=self.dtype, name=name)
        def embedded(timesteps: jax.Array, name: str) -> jax.Array:
            features = timestep_features(timesteps, steps=self.frequency_steps)
            return dense(f'{name}_out')(nn.silu(dense(f'{name}_in')(features)))
        time = (embedded(timesteps[:, 0], 'time') + embedded(timesteps[:, 1], 'stride') if self.strides else
                embedded(timesteps, 'time'))
        table = nn.Embed(self.classes + 1, self.width, embedding_init=nn.initializers.normal(0.02), dtype=self.dtype,
                         name='labels')
        return time + table(labels)
