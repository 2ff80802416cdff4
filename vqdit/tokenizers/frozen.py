"""Learned tokenizers: a front end (pixels or log-mel) around an autoencoder, trained once and then frozen."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.tokenizers.losses import peak_signal_to_noise, reconstruction_loss
from vqdit.tokenizers.losses.terms import Term
from vqdit.tokenizers.padding import crop
from vqdit.tokenizers.quantizers.base import Quantizer
from vqdit.tokenizers.spec import TokenSpec
from vqdit.tokenizers.text import TextTokenizer

Variables = Any


class FrontEnd(Protocol):
    """Turns raw data [B, ...] into what the autoencoder sees, fp32 [B, *size, channels], and back."""

    @property
    def size(self) -> tuple[int, ...]: ...

    @property
    def channels(self) -> int: ...

    def analyse(self, raw: jax.Array) -> jax.Array: ...

    def synthesise(self, x: jax.Array) -> jax.Array: ...


class Codec(Protocol):
    """What all autoencoders around a quantizer are: Linen modules that go from data to codes and back.

    `apply(variables, x, train=..., key=...)` gives a `Reconstruction` of data [B, *size, C], as its methods `latents`,
    `quantize` and `reconstruct` do one after the other; the methods `encode`, `decode` and `lookup` give codes
    int32 [B, *grid, levels], data, completed at the end to whole strides, and vectors.
    """

    @property
    def quantizer(self) -> Quantizer: ...

    def grid(self, size: Sequence[int]) -> tuple[int, ...]: ...

    def init(self, *args: Any, **options: Any) -> Any: ...

    def apply(self, *args: Any, **options: Any) -> Any: ...


class Tokenizer(Protocol):
    """What the rest of the system asks of any tokenizer, learned or not."""

    @property
    def spec(self) -> TokenSpec: ...

    @property
    def fingerprint(self) -> str: ...

    def encode(self, data: Any) -> np.ndarray: ...

    def decode(self, codes: np.ndarray) -> Any: ...


@dataclass(frozen=True)
class LearnedTokenizer:
    """The architecture of a learned tokenizer: pure functions of its variables `{params, codebook}`."""

    front_end: FrontEnd
    autoencoder: Codec
    absolute_weight: float = 0.0
    squared_weight: float = 1.0
    terms: tuple[Term, ...] = ()

    @property
    def spec(self) -> TokenSpec:
        quantizer = self.autoencoder.quantizer
        grid = quantizer.token_grid(self.autoencoder.grid(self.front_end.size))
        return TokenSpec(grid, quantizer.num_codes, quantizer.levels, quantizer.radices)

    def init(self, key: jax.Array) -> Variables:
        """Fresh variables."""
        x = jnp.zeros((1, *self.front_end.size, self.front_end.channels))
        return self.autoencoder.init(key, x)

    def distortion(self, output: jax.Array, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The weighted losses of the autoencoder's output [B, *size, C] against its input, and figures of both."""
        value = reconstruction_loss(output, x, self.absolute_weight, self.squared_weight)
        metrics = {'psnr': peak_signal_to_noise(output, x)}
        for term in self.terms:
            metrics[term.name] = term.loss(output, x)
            value = value + term.weight * metrics[term.name]
        return value, metrics

    def encode(self, variables: Variables, raw: jax.Array) -> jax.Array:
        """Codes int32 [B, N] of raw data."""
        codes: Any = self.autoencoder.apply(variables, self.front_end.analyse(raw), method='encode')
        return codes.reshape(codes.shape[0], -1)

    def decode(self, variables: Variables, codes: jax.Array) -> jax.Array:
        """Raw data of codes int32 [B, N]."""
        shaped = codes.reshape(codes.shape[0], *self.spec.grid, self.spec.levels)
        decoded: Any = self.autoencoder.apply(variables, shaped, method='decode')
        return self.front_end.synthesise(crop(decoded, self.front_end.size))

    def latents(self, variables: Variables, raw: jax.Array) -> jax.Array:
        """What the codes are made of, fp32 [B, *grid, dimension], of raw data."""
        latents: Any = self.autoencoder.apply(variables, self.front_end.analyse(raw), method='latents')
        return latents

    def reconstruct(self, variables: Variables, latents: jax.Array) -> jax.Array:
        """Raw data of latents, which are quantised first."""
        quantize_first = lambda codec, z: codec.reconstruct(codec.quantize(z).vectors, self.front_end.size)
        decoded: Any = self.autoencoder.apply(variables, latents, method=quantize_first)
        return self.front_end.synthesise(decoded)

    @property
    def has_codebook(self) -> bool:
        """Whether every code stands for a vector at its own position, as those of coarse scales do not."""
        return self.spec.grid == tuple(self.autoencoder.grid(self.front_end.size))

    def check_codebook(self) -> None:
        """Raises UserError unless `has_codebook`."""
        if not self.has_codebook:
            raise UserError(f'the codes lie on a grid of {self.spec.grid}, which is not that of the latents, and have '
                            'no vectors of their own; choose a quantizer other than "multi_scale"')

    def codebook(self, variables: Variables) -> jax.Array:
        """What every code adds to the vector of its position, up to a constant of its level: fp32 [levels, K, C].

        Raises UserError as `check_codebook` does.
        """
        self.check_codebook()
        every = jnp.eye(self.spec.levels, dtype=jnp.int32)[:, None] * jnp.arange(self.spec.num_codes)[None, :, None]
        vectors: Any = self.autoencoder.apply(variables, every, method='lookup')
        return vectors


class FrozenTokenizer:
    """A learned tokenizer with its variables: numpy in, numpy out, in compiled pieces of a fixed batch size."""

    def __init__(self, tokenizer: LearnedTokenizer, variables: Variables, batch_size: int = 64):
        self.tokenizer = tokenizer
        self.variables = variables
        self.batch_size = batch_size
        self._encode = jax.jit(tokenizer.encode)
        self._decode = jax.jit(tokenizer.decode)

    @property
    def spec(self) -> TokenSpec:
        return self.tokenizer.spec

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name these very parameters and this layout."""
        digest = hashlib.sha256(repr((self.spec, self.tokenizer.front_end)).encode())
        for leaf in jax.tree.leaves(self.variables):
            digest.update(np.ascontiguousarray(np.asarray(leaf)).tobytes())
        return digest.hexdigest()[:16]

    def encode(self, data: np.ndarray) -> np.ndarray:
        """Codes int32 [B, N] of raw data [B, ...]."""
        return self._in_pieces(self._encode, data)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Raw data of codes int32 [B, N]."""
        return self._in_pieces(self._decode, codes)

    def codebook(self) -> np.ndarray:
        """`LearnedTokenizer.codebook`, with the same errors."""
        return np.asarray(self.tokenizer.codebook(self.variables))

    def _in_pieces(self, function, array: np.ndarray) -> np.ndarray:
        """Applies `function` to pieces of `batch_size`, the last one padded, so that it compiles once."""
        pieces = []
        for start in range(0, len(array), self.batch_size):
            piece = np.asarray(array[start:start + self.batch_size])
            missing = self.batch_size - len(piece)
            padded = np.concatenate([piece, np.repeat(piece[-1:], missing, axis=0)]) if missing else piece
            pieces.append(np.asarray(function(self.variables, padded))[:len(piece)])
        return np.concatenate(pieces)


MOST_CODES = 4096
"""Of a codebook whose geometry is asked for, which takes a matrix of all pairs of codes."""


def check_geometry(tokenizer: LearnedTokenizer, name: str) -> None:
    """Raises UserError unless every code stands for a vector, and they are few enough to compare them all."""
    tokenizer.check_codebook()
    spec = tokenizer.spec
    if spec.levels > 1 or spec.num_codes > MOST_CODES:
        raise UserError(f'the distances of the codes of {name} are not to be had: there are {spec.num_codes} at '
                        f'{spec.levels} levels, at most {MOST_CODES} at 1 can be compared; choose process "uniform"')


def encode_loosely(tokenizer: Tokenizer, data: Any) -> np.ndarray:
    """Codes int32 [B, N]; captions too long for the layout are cut and unknown words marked, as real data has both."""
    return tokenizer.encode(data, strict=False) if isinstance(tokenizer, TextTokenizer) else tokenizer.encode(data)


def stack(items: Sequence[Any]) -> Any:
    """What a tokenizer encodes, of single examples: strings stay a list, arrays are stacked."""
    return list(items) if isinstance(items[0], str) else np.stack(items)
