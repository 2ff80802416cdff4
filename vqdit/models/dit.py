"""The published diffusion transformer for images, DiT (Peebles & Xie 2023, arXiv:2212.09748), and its sizes.

SiT (Ma et al. 2024, arXiv:2401.08740) is the same network under another process: DiT is given timesteps 0 to 999, SiT
the time in [0, 1] with the data at 1, and only the first half of SiT's output channels is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError, nearest
from vqdit.folding import depth_to_space, space_to_depth
from vqdit.models.blocks import REMAT_POLICIES, modulate, stack_of_blocks
from vqdit.models.dit_blocks import DiTBlock, Implementation, layer_norm, xavier_dense, zero_dense


def sine_cosine_positions(grid: tuple[int, int], width: int) -> np.ndarray:
    """fp32 [N, D] of a grid in row-major order: one half of the channels tells the column, the other the row.

    Each half holds the sines, then the cosines, of the index at D / 4 frequencies from 1 down to 1e-4.
    """
    rows, columns = np.indices(grid).reshape(2, -1)
    frequencies = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
    halves = [index[:, None] * frequencies[None] for index in (columns, rows)]
    return np.concatenate([wave(half) for half in halves for wave in (np.sin, np.cos)], axis=1).astype(np.float32)


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


class DiT(nn.Module):
    """`(latents [B, H, W, C], timesteps fp32 [B], labels int32 [B]) -> fp32 [B, H, W, out_channels]`.

    A network of strides is told two numbers, timesteps fp32 [B, 2]: where a stride begins, and how long it is.

    Attributes:
        size: H and W of the latents.
        channels: C of the latents.
        out_channels: of the prediction; twice C where the variance is learned too (its second half).
        patch: side of the blocks of latents that become one token.
        width, depth, heads: of the trunk.
        classes: how many labels there are; the label `classes` stands for none (classifier-free guidance).
        strides: whether it is a network of strides.
        frequency_steps: of the timestep features, see `timestep_features`; 127 in diffusers.
        remat: what the backward pass computes again; see `blocks.stack_of_blocks`.
        unroll: blocks in one iteration of the scan over the depth.
        dtype: of the computation; parameters, norms, timestep features and the result are fp32.
        implementation: of the attention, see `dit_blocks.attend`.

    Raises UserError when the heads do not divide the width, the width is no multiple of 4, the patch does not divide
    the size, or remat is unknown.
    """

    size: tuple[int, int] = (32, 32)
    channels: int = 4
    out_channels: int = 8
    patch: int = 2
    width: int = 1152
    depth: int = 28
    heads: int = 16
    classes: int = 1000
    strides: bool = False
    frequency_steps: int = 128
    remat: str = 'none'
    unroll: int = 1
    dtype: jnp.dtype = jnp.float32
    implementation: Implementation = None

    def __post_init__(self):
        if self.width % self.heads or self.width % 4:
            raise UserError(f'width {self.width} must be divisible by the {self.heads} heads, and by 4 for positions')
        if any(side % self.patch for side in self.size):
            raise UserError(f'the patch {self.patch} does not divide the size {tuple(self.size)} of the latents')
        if self.remat not in REMAT_POLICIES:
            raise UserError(f'remat "{self.remat}" is unknown; choose one of {", ".join(REMAT_POLICIES)}')
        super().__post_init__()

    @nn.compact
    def __call__(self, latents: jax.Array, timesteps: jax.Array, labels: jax.Array) -> jax.Array:
        chex.assert_shape(latents, (None, *self.size, self.channels))
        chex.assert_shape(labels, latents.shape[:1])
        chex.assert_shape(timesteps, (*latents.shape[:1], *(2,) * self.strides))
        x = self._embed(latents)
        condition = nn.silu(self._condition(timesteps, labels))
        blocks = stack_of_blocks(self.depth, self.remat, self.unroll, DiTBlock, heads=self.heads, dtype=self.dtype,
                                 implementation=self.implementation)
        x, _ = blocks(x, condition)
        modulation = zero_dense(2 * self.width, self.dtype, 'modulation')(condition)[:, None]
        x = modulate(layer_norm(x), *jnp.split(modulation, 2, axis=-1))
        x = zero_dense(self.patch**2 * self.out_channels, self.dtype, 'head')(x)
        return depth_to_space(x.reshape(-1, *self.grid, x.shape[-1]), (self.patch,) * 2).astype(jnp.float32)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.size[0] // self.patch, self.size[1] // self.patch

    def _embed(self, latents: jax.Array) -> jax.Array:
        """The trunk's input [B, N, D]: patches, and a fixed table of positions that no gradient reaches."""
        patches = space_to_depth(latents, (self.patch,) * 2)
        x = xavier_dense(self.width, self.dtype, 'patches')(patches.reshape(patches.shape[0], -1, patches.shape[-1]))
        table = self.param('positions', lambda _: jnp.asarray(sine_cosine_positions(self.grid, self.width)))
        return x + jax.lax.stop_gradient(table)[None].astype(self.dtype)

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


@dataclass(frozen=True)
class Size:
    """One row of table 1 of the paper."""

    width: int
    depth: int
    heads: int


SIZES: Mapping[str, Size] = {
    'S': Size(384, 12, 6),
    'B': Size(768, 12, 12),
    'L': Size(1024, 24, 16),
    'XL': Size(1152, 28, 16),
}

PUBLISHED: Mapping[str, tuple[Size, int]] = {
    f'{family}-{size}/{patch}': (SIZES[size], patch)
    for family in ('DiT', 'SiT') for size in SIZES for patch in (2, 4, 8)
}
"""Size and patch of every published model by its name, "DiT-S/8" to "SiT-XL/2"."""


def published_dit(name: str, pixels: int = 256, **options) -> DiT:
    """The network `name` of `PUBLISHED` for square images of `pixels`, seen through an autoencoder of stride 8.

    Raises UserError when the name is unknown.
    """
    if name not in PUBLISHED:
        raise UserError(f'model "{name}" is unknown; choose one of {", ".join(PUBLISHED)}.{nearest(name, PUBLISHED)}')
    size, patch = PUBLISHED[name]
    shape = {'width': size.width, 'depth': size.depth, 'heads': size.heads, 'patch': patch}
    return DiT(**({'size': (pixels // 8, pixels // 8)} | shape | options))
