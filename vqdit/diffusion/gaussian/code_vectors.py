"""Codes as vectors, and back: what a Gaussian process over codes noises (arXiv:2211.15089; arXiv:2208.04202)."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.tokenizers.spec import TokenLayout

HIGHEST = jax.lax.Precision.HIGHEST


@dataclass(frozen=True, eq=False)
class CodeVectors:
    """The vectors of all codes of a layout, filled up with zeros to the channels C of the widest modality.

    Attributes:
        layout: the modalities and their tokens.
        tables: fp32 [levels, K, channels] of every modality, of variance 1 or so.
    """

    layout: TokenLayout
    tables: Mapping[str, np.ndarray]

    @property
    def channels(self) -> int:
        return max(table.shape[-1] for table in self.tables.values())

    @property
    def used(self) -> np.ndarray:
        """Which channels of which tokens are not filling, bool [N, C]."""
        return np.concatenate([
            np.broadcast_to(np.arange(self.channels)[None] < self.tables[name].shape[-1], (spec.length, self.channels))
            for name, spec in self.layout.specs.items()])

    def of(self, codes: jax.Array) -> jax.Array:
        """The vectors fp32 [B, N, C] of `codes int32 [B, N]`; those of masks are zero."""
        parts = {}
        for name, part in self.layout.split(codes).items():
            with_mask = np.pad(self._table(name), ((0, 0), (0, 1), (0, 0)))
            by_level = part.reshape(len(part), -1, len(with_mask))
            parts[name] = jnp.asarray(with_mask)[jnp.arange(len(with_mask))[None, None], by_level]
        return self._joined(parts)

    def mean(self, logits: Mapping[str, jax.Array]) -> jax.Array:
        """The mean vectors fp32 [B, N, C] of the codes under `logits [B, n, K]`: the clean vectors expected."""
        parts = {}
        for name, values in logits.items():
            table = jnp.asarray(self._table(name))
            shares = jax.nn.softmax(values).reshape(len(values), -1, *table.shape[:2])
            parts[name] = jnp.einsum('bnlk,lkc->bnlc', shares, table, precision=HIGHEST)
        return self._joined(parts)

    def nearest(self, vectors: jax.Array) -> jax.Array:
        """The codes int32 [B, N] whose vectors are nearest to `vectors [B, N, C]`."""
        codes = {}
        for name, part in self.layout.split(vectors).items():
            table = jnp.asarray(self._table(name))
            by_level = part.reshape(len(part), -1, len(table), self.channels)
            closeness = jnp.einsum('bnlc,lkc->bnlk', by_level, table, precision=HIGHEST)
            closeness = closeness - 0.5 * jnp.sum(table**2, axis=-1)[None, None]
            codes[name] = jnp.argmax(closeness, axis=-1).astype(jnp.int32).reshape(len(part), -1)
        return self.layout.join(codes)

    def _table(self, name: str) -> np.ndarray:
        table = self.tables[name]
        return np.pad(table, ((0, 0), (0, 0), (0, self.channels - table.shape[-1])))

    def _joined(self, parts: Mapping[str, jax.Array]) -> jax.Array:
        """[B, positions, levels, C] of every modality to [B, N, C]."""
        return self.layout.join({name: part.reshape(len(part), -1, self.channels) for name, part in parts.items()})
