"""What is inside of a learned tokenizer: its latents before quantization, and their statistics.

Gaussian diffusion over latents or code vectors needs their scale; it is measured once and kept beside the tokenizer,
where `latents` reads it.
"""

from pathlib import Path
from typing import Any, NamedTuple, Self

import flax.linen as nn
import jax
import numpy as np

from vqdit.files import read_json, write_json
from vqdit.tokenizers.codec import Standardised
from vqdit.tokenizers.frozen import FrozenTokenizer


class Statistics(NamedTuple):
    """Mean and standard deviation of every dimension, float64 [D]."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray) -> Self:
        """Of vectors [..., D]."""
        flat = vectors.reshape(-1, vectors.shape[-1]).astype(np.float64)
        return cls(flat.mean(axis=0), flat.std(axis=0))

    def normalise(self, vectors: jax.Array) -> jax.Array:
        """`vectors [..., D]` with mean 0 and standard deviation 1, fp32; dimensions that never change become 0."""
        scale = np.where(self.std > 0, self.std, 1.0)
        return (vectors - self._beside(self.mean, vectors)) / self._beside(scale, vectors)

    def restore(self, vectors: jax.Array) -> jax.Array:
        """The inverse of `normalise`."""
        return vectors * self._beside(self.std, vectors) + self._beside(self.mean, vectors)

    def _beside(self, numbers: np.ndarray, vectors: jax.Array) -> np.ndarray:
        return np.asarray(numbers, np.float32).reshape((1,) * (vectors.ndim - 1) + (-1,))


def latents_of(tokenizer: FrozenTokenizer, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the quantizer is given for raw data, standardised, and what it makes of it, fp32 [B, *grid, D]."""
    wrapped = isinstance(tokenizer.tokenizer.autoencoder.quantizer, Standardised)
    path, seen = ('quantizer',) * (1 + wrapped), []

    def watch(call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        out = call(*args, **kwargs)
        if context.module.path == path and context.method_name == '__call__':
            seen.append((args[0], out.vectors))
        return out

    @jax.jit
    def quantize(variables: Any, raw: jax.Array) -> tuple[jax.Array, jax.Array]:
        with nn.intercept_methods(watch):
            tokenizer.tokenizer.encode(variables, raw)
        return seen[-1]

    latents, vectors = quantize(tokenizer.variables, raw)
    return np.asarray(latents), np.asarray(vectors)


def write_statistics(folder: Path, tokenizer: FrozenTokenizer, raw: np.ndarray) -> None:
    """Writes `latents.json` into a tokenizer's folder: statistics of its `latents` and its `code_vectors` on data."""
    latents = jax.jit(tokenizer.tokenizer.latents)(tokenizer.variables, raw)
    measured = {'latents': np.asarray(latents), 'code_vectors': latents_of(tokenizer, raw)[1]}
    write_json(folder / 'latents.json', {name: {'mean': list(part.mean), 'std': list(part.std)}
                                         for name, part in ((n, Statistics.of(v)) for n, v in measured.items())})


def read_statistics(folder: Path) -> dict[str, Statistics]:
    """What `write_statistics` wrote. Raises DataError for a file that is missing or broken."""
    return {name: Statistics(np.asarray(part['mean']), np.asarray(part['std']))
            for name, part in read_json(folder / 'latents.json').items()}
