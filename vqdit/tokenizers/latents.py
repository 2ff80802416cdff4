"""Continuous latents of images as a tokenizer: what an image DiT is trained on and what becomes a picture again.

A token store keeps integers of 16 bits. Latents, and the mean and the deviation of Gaussian ones, are kept as the bits
of fp16 numbers, which are such integers: everything that holds for codes holds for them.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from vqdit.errors import UserError
from vqdit.tokenizers.frozen import FrontEnd, LearnedTokenizer
from vqdit.tokenizers.latent_diffusion import GaussianAutoencoder
from vqdit.tokenizers.latent_statistics import Statistics
from vqdit.tokenizers.pixels import Pixels
from vqdit.tokenizers.spec import TokenSpec

Variables = Any
HALF_BITS = 2**16 - 1
"""How many codes the bits of a finite fp16 number are: the last of 2^16 is not a number."""


class LatentTokenizer(Protocol):
    """Pure functions of the variables of a frozen autoencoder of images.

    Attributes:
        spec: of the codes that are stored.
        shape: [h, w, C] of the latents.
    """

    @property
    def spec(self) -> TokenSpec: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    def init(self, key: jax.Array) -> Variables:
        """Fresh variables."""

    def encode(self, variables: Variables, raw: jax.Array) -> jax.Array:
        """What is stored of images uint8 [B, H, W, 3]: codes int32 [B, N]."""

    def latents(self, variables: Variables, codes: jax.Array, key: jax.Array) -> jax.Array:
        """Latents fp32 [B, h, w, C] of about unit variance, drawn where the codes leave a choice."""

    def decode_latents(self, variables: Variables, latents: jax.Array) -> jax.Array:
        """Images uint8 [B, H, W, 3] of latents."""


@dataclass(frozen=True)
class GaussianLatents:
    """The latents of a KL autoencoder (LDM, arXiv:2112.10752), drawn anew whenever an image is used."""

    front_end: Pixels
    autoencoder: GaussianAutoencoder

    @property
    def shape(self) -> tuple[int, int, int]:
        stride = 2 ** (len(self.autoencoder.widths) - 1)
        rows, columns = self.front_end.size
        return rows // stride, columns // stride, self.autoencoder.latent_channels

    @property
    def spec(self) -> TokenSpec:
        *grid, channels = self.shape
        return TokenSpec(tuple(grid), HALF_BITS, levels=2 * channels)

    def init(self, key: jax.Array) -> Variables:
        return self.autoencoder.init(key, jnp.zeros((1, *self.front_end.size, self.front_end.channels)))

    def encode(self, variables: Variables, raw: jax.Array) -> jax.Array:
        images = self.front_end.analyse(raw)
        moments: Any = self.autoencoder.apply(variables, images, method='moments')
        mean, log_variance = moments
        numbers = jnp.concatenate([mean, jnp.exp(0.5 * log_variance)], axis=-1)
        return half_bits(numbers * self.autoencoder.scale).reshape(len(raw), -1)

    def latents(self, variables: Variables, codes: jax.Array, key: jax.Array) -> jax.Array:
        mean, deviation = self.moments(codes)
        return mean + deviation * jax.random.normal(key, mean.shape)

    def decode(self, variables: Variables, codes: jax.Array) -> jax.Array:
        """Images of the mean latents."""
        return self.decode_latents(variables, self.moments(codes)[0])

    def decode_latents(self, variables: Variables, latents: jax.Array) -> jax.Array:
        decoded: Any = self.autoencoder.apply(variables, latents, method='decode')
        return self.front_end.synthesise(decoded)

    def moments(self, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and deviation of the scaled latents that codes stand for, each fp32 [B, h, w, C]."""
        *grid, channels = self.shape
        mean, deviation = jnp.split(numbers_of_bits(codes).reshape(-1, *grid, 2 * channels), 2, axis=-1)
        return mean, deviation


@dataclass(frozen=True, eq=False)
class _Learned:
    """Something inside of a tokenizer of images that was trained here, [rows, columns, D].

    Attributes:
        statistics: of it on data, by which it is standardised.

    Raises UserError when it has no rows and columns.
    """

    tokenizer: LearnedTokenizer
    statistics: Statistics

    def __post_init__(self) -> None:
        if len(self.spec.grid) != 2:
            raise UserError(f'the tokens of tokenizers.image lie on a grid of {self.spec.grid}, and an image DiT needs '
                            'rows and columns; choose kind "pixels" and a quantizer other than "multi_scale"')

    @property
    def spec(self) -> TokenSpec:
        """Every subclass says what is stored."""
        raise NotImplementedError

    @property
    def front_end(self) -> FrontEnd:
        return self.tokenizer.front_end

    @property
    def shape(self) -> tuple[int, int, int]:
        rows, columns = self.spec.grid
        return rows, columns, self.tokenizer.autoencoder.quantizer.dimension

    def init(self, key: jax.Array) -> Variables:
        return self.tokenizer.init(key)


class CodeVectors(_Learned):
    """The vectors of its codes, which are stored; samples are decoded as they are, not quantised again."""

    @property
    def spec(self) -> TokenSpec:
        return self.tokenizer.spec

    def encode(self, variables: Variables, raw: jax.Array) -> jax.Array:
        return self.tokenizer.encode(variables, raw)

    def decode(self, variables: Variables, codes: jax.Array) -> jax.Array:
        return self.tokenizer.decode(variables, codes)

    def latents(self, variables: Variables, codes: jax.Array, key: jax.Array) -> jax.Array:
        shaped = codes.reshape(-1, *self.spec.grid, self.spec.levels)
        vectors: Any = self.tokenizer.autoencoder.apply(variables, shaped, method='lookup')
        return self.statistics.normalise(vectors)

    def decode_latents(self, variables: Variables, latents: jax.Array) -> jax.Array:
        decoded: Any = self.tokenizer.autoencoder.apply(
            variables, self.statistics.restore(latents), self.front_end.size, method='reconstruct')
        return self.front_end.synthesise(decoded)


class Unquantized(_Learned):
    """What its codes are made of, stored as fp16 numbers; samples are quantised before they are decoded."""

    @property
    def spec(self) -> TokenSpec:
        grid = tuple(self.tokenizer.autoencoder.grid(self.front_end.size))
        return TokenSpec(grid, HALF_BITS, levels=self.tokenizer.autoencoder.quantizer.dimension)

    def encode(self, variables: Variables, raw: jax.Array) -> jax.Array:
        return half_bits(self.tokenizer.latents(variables, raw)).reshape(len(raw), -1)

    def decode(self, variables: Variables, codes: jax.Array) -> jax.Array:
        return self.tokenizer.reconstruct(variables, numbers_of_bits(codes).reshape(-1, *self.shape))

    def latents(self, variables: Variables, codes: jax.Array, key: jax.Array) -> jax.Array:
        return self.statistics.normalise(numbers_of_bits(codes).reshape(-1, *self.shape))

    def decode_latents(self, variables: Variables, latents: jax.Array) -> jax.Array:
        return self.tokenizer.reconstruct(variables, self.statistics.restore(latents))


def half_bits(numbers: jax.Array) -> jax.Array:
    """The bits of numbers rounded to fp16 as int32; what is too large becomes the largest finite one."""
    largest = float(jnp.finfo(jnp.float16).max)
    half = jnp.clip(numbers, -largest, largest).astype(jnp.float16)
    return jax.lax.bitcast_convert_type(half, jnp.uint16).astype(jnp.int32)


def numbers_of_bits(bits: jax.Array) -> jax.Array:
    """The inverse of `half_bits`, fp32."""
    return jax.lax.bitcast_convert_type(bits.astype(jnp.uint16), jnp.float16).astype(jnp.float32)
