"""One convolutional autoencoder for audio (1-D), images (2-D) and video (3-D), around any quantizer.

    x [B, *size, C] -> patches -> residual blocks, halving -> standardised latents -> quantizer
      -> codes int32 [B, *grid, levels]

The first and last layers fold blocks of `patch` positions into channels, and convolutions in 3-D are factorised into
space and time: on a CPU few wide layers run several times faster than many narrow ones. `padding` says whether the
first axis is time that runs one way. Data of any size is completed to whole strides, and what is decoded is cut again.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.errors import UserError
from vqdit.folding import depth_to_space, space_to_depth
from vqdit.tokenizers.padding import Centred, Padding, complete, crop, grid_of, keep
from vqdit.tokenizers.quantizers.base import Quantized, Quantizer
from vqdit.tokenizers.ranges import Range, unbounded


class Convolution(nn.Module):
    """Same-size convolution with kernel 3 on every axis; in 3-D first over space, then over time."""

    width: int
    padding: Padding

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rank = x.ndim - 2
        kernels = [(1, 3, 3), (3, 1, 1)] if rank == 3 else [(3,) * rank]
        for kernel in kernels:
            x, first = self.padding.surround(self, x, kernel[0] - 1)
            x = nn.Conv(self.width, kernel, padding=(first, *((side // 2, side // 2) for side in kernel[1:])))(x)
        return x


class ResidualBlock(nn.Module):
    """x + conv1(silu(conv3(silu(norm(x))))), the second convolution of kernel 1 starting at zero."""

    padding: Padding

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        hidden = nn.silu(nn.RMSNorm()(x))
        hidden = nn.silu(Convolution(width, self.padding)(hidden))
        return x + nn.Dense(width, kernel_init=nn.initializers.zeros)(hidden)


class Attention(nn.Module):
    """x + attention among all positions, or those of the same time where padding is causal, starting at zero."""

    heads: int
    padding: Padding

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width, shape = x.shape[-1], x.shape[:self.padding.first_joint]
        flat = nn.RMSNorm()(x).reshape(math.prod(shape), -1, width)
        query, key, value = jnp.split(nn.DenseGeneral((3 * self.heads, width // self.heads))(flat), 3, axis=2)
        mixed = jax.nn.dot_product_attention(nn.RMSNorm()(query), nn.RMSNorm()(key), value)
        return x + nn.DenseGeneral(width, (-2, -1), kernel_init=nn.initializers.zeros)(mixed).reshape(x.shape)


class AdaptiveGroupNorm(nn.Module):
    """Normalised groups of channels, scaled and shifted by the code vectors, so that these reach every resolution.

    The vectors [B, *grid, D] are repeated to the size of x (MoVQ, arXiv:2209.09002). Statistics are those of an
    item, or of its positions at the same time where padding is causal.
    """

    padding: Padding

    @nn.compact
    def __call__(self, x: jax.Array, vectors: jax.Array) -> jax.Array:
        width = x.shape[-1]
        for axis in range(1, x.ndim - 1):
            vectors = vectors.repeat(x.shape[axis] // vectors.shape[axis], axis)
        scale, shift = jnp.split(nn.Dense(2 * width, kernel_init=nn.initializers.zeros)(vectors), 2, axis=-1)
        joint = tuple(range(self.padding.first_joint, x.ndim))
        norm = nn.GroupNorm(groups_of(width), use_bias=False, use_scale=False, reduction_axes=joint,
                            use_fast_variance=False)
        return norm(x) * (1 + scale) + shift


def groups_of(width: int) -> int:
    """The usual number of groups: of at least four channels, at most 32, and a divisor of the width."""
    return math.gcd(width, min(32, max(1, width // 4)))


Control = Callable[[Padding], nn.Module]


class Encoder(nn.Module):
    """[B, *size, C] -> latents [B, *grid, dimension]; attributes are those of `Autoencoder`."""

    widths: Sequence[int]
    blocks: int
    patch: Sequence[int]
    dimension: int
    padding: Padding = Centred()
    heads: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = space_to_depth(x, self.patch)
        for stage, width in enumerate(self.widths):
            if stage:
                x = space_to_depth(x, (2,) * (x.ndim - 2))
            x = nn.Dense(width)(x)
            for _ in range(self.blocks):
                x = ResidualBlock(self.padding)(x)
        if self.heads:
            x = Attention(self.heads, self.padding)(x)
        return nn.Dense(self.dimension)(nn.RMSNorm()(x))


class Decoder(nn.Module):
    """Code vectors [B, *grid, dimension] -> [B, *size, C]; the mirror image of the encoder."""

    widths: Sequence[int]
    blocks: int
    patch: Sequence[int]
    channels: int
    padding: Padding = Centred()
    heads: int = 0
    control: Control | None = None
    bound: Range = unbounded

    @nn.compact
    def __call__(self, vectors: jax.Array) -> jax.Array:
        rank = vectors.ndim - 2
        x = nn.Dense(self.widths[-1])(vectors)
        if self.heads:
            x = Attention(self.heads, self.padding)(x)
        for stage in reversed(range(len(self.widths))):
            if self.control:
                x = self.control(self.padding)(x, vectors)
            for _ in range(self.blocks):
                x = ResidualBlock(self.padding)(x)
            if stage:
                x = depth_to_space(nn.Dense(self.widths[stage - 1] * 2**rank)(x), (2,) * rank)
        pixels = self.channels * math.prod(self.patch)
        return self.bound(depth_to_space(nn.Dense(pixels)(nn.RMSNorm()(x)), self.patch))


class Standardise(nn.Module):
    """Latents of zero mean and unit variance in every dimension, so that no quantizer starts or ends in one cell.

    Training uses the statistics of the batch, over all devices, and moves the averages that are used afterwards, as
    batch normalisation does (arXiv:1502.03167). They live in the `codebook` collection.
    """

    decay: float = 0.98

    @nn.compact
    def __call__(self, z: jax.Array, train: bool) -> jax.Array:
        z = z.astype(jnp.float32)
        shape, axes = (z.shape[-1],), tuple(range(z.ndim - 1))
        mean = self.variable('codebook', 'mean', jnp.zeros, shape, jnp.float32)
        variance = self.variable('codebook', 'variance', jnp.ones, shape, jnp.float32)
        centre, spread = mean.value, variance.value
        if train:
            centre, spread = jnp.mean(z, axes), jnp.var(z, axes)
            mean.value = self.decay * mean.value + (1 - self.decay) * jax.lax.stop_gradient(centre)
            variance.value = self.decay * variance.value + (1 - self.decay) * jax.lax.stop_gradient(spread)
        lead = (1,) * (z.ndim - 1) + (-1,)
        return (z - centre.reshape(lead)) * jax.lax.rsqrt(spread.reshape(lead) + 1e-6)


class Reconstruction(NamedTuple):
    """The output of the autoencoder: `output [B, *size, C]` and what the quantizer made of the latents."""

    output: jax.Array
    quantized: Quantized


class Autoencoder(nn.Module):
    """Encoder, quantizer, decoder.

    Attributes:
        quantizer: any module of `vqdit.tokenizers.quantizers`.
        channels: C of the data.
        widths: channels at each resolution; every further one halves all axes.
        blocks: residual blocks at each resolution, on both sides.
        patch: positions folded into channels by the first layer, one number for each axis.
        padding: `Centred()`, or `Causal()` or `FirstAlone()` when the first axis is time.
        heads: of the attention at the lowest resolution, on both sides; none by default.
        control: what the code vectors do at every resolution of the decoder: nothing, or `AdaptiveGroupNorm`.
        bound: what is done to the output at last; see `ranges`.

    Raises UserError for attention where causality leaves nothing to attend to.
    """

    quantizer: Quantizer
    channels: int
    widths: Sequence[int]
    blocks: int
    patch: Sequence[int]
    padding: Padding = Centred()
    heads: int = 0
    control: Control | None = None
    bound: Range = unbounded

    def __post_init__(self):
        if self.heads and self.padding.first_joint > len(self.patch):
            raise UserError(f'heads={self.heads} is of no use: a causal sequence has one position at a time; set 0')
        super().__post_init__()

    def setup(self):
        trunk = self.widths, self.blocks, self.patch
        self.encoder = Encoder(*trunk, self.quantizer.dimension, self.padding, self.heads)
        self.standardise = Standardise()
        self.decoder = Decoder(*trunk, self.channels, self.padding, self.heads, self.control, self.bound)

    @property
    def strides(self) -> tuple[int, ...]:
        """Positions that make a token, along every axis."""
        return tuple(step * 2 ** (len(self.widths) - 1) for step in self.patch)

    @nn.nowrap
    def grid(self, size: Sequence[int]) -> tuple[int, ...]:
        """The grid of the latents of data of `size`. Raises UserError for data of another rank."""
        return grid_of(size, self.strides, self.padding.lead(self.strides[0]))

    def __call__(self, x: jax.Array, *, train: bool = False, key: jax.Array | None = None) -> Reconstruction:
        lead = self.padding.lead(self.strides[0])
        quantized = self.quantizer(self.standardise(self._latents(x, lead), train), train=train, key=key)
        return Reconstruction(crop(self.decoder(quantized.vectors)[:, lead:], x.shape[1:-1]), quantized)

    def encode(self, x: jax.Array) -> jax.Array:
        """Codes int32 [B, *grid, levels] of data [B, *size, C]."""
        return self.quantizer(self.standardise(self._latents(x, self._lead_of_stream()), False)).codes

    def decode(self, codes: jax.Array) -> jax.Array:
        """Data [B, *size, C] of codes int32 [B, *grid, levels], with every stride complete."""
        return self.decoder(self.lookup(codes))[:, self._lead_of_stream():]

    def latents(self, x: jax.Array) -> jax.Array:
        """What is quantised, [B, *grid, dimension], of data [B, *size, C]: not yet standardised."""
        return self._latents(x, self._lead_of_stream())

    def reconstruct(self, latents: jax.Array) -> jax.Array:
        """Data [B, *size, C] of latents, which are quantised first, with every stride complete."""
        vectors = self.quantizer(self.standardise(latents, False)).vectors
        return self.decoder(vectors)[:, self._lead_of_stream():]

    def lookup(self, codes: jax.Array) -> jax.Array:
        """Code vectors [..., dimension] of codes int32 [..., levels]."""
        return self.quantizer.lookup(codes)

    def _latents(self, x: jax.Array, lead: int) -> jax.Array:
        chex.assert_rank(x, len(self.patch) + 2)
        chex.assert_axis_dimension(x, -1, self.channels)
        return self.encoder(complete(x, self.strides, lead))

    def _lead_of_stream(self) -> int:
        """What `Padding.lead` says at the beginning, and 0 in chunks that follow."""
        begun = self.has_variable('stream', 'begun')
        keep(self, 'begun', jnp.ones((), jnp.bool_))
        return 0 if begun else self.padding.lead(self.strides[0])
