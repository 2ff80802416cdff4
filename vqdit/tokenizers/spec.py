"""The layout of tokens that tokenizers, processes, models and data share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError, nearest

Array = TypeVar('Array', jax.Array, np.ndarray)


@dataclass(frozen=True)
class TokenSpec:
    """What the tokens of one modality look like.

    Attributes:
        grid: positions along each axis, e.g. `(4, 4)` for an image, `(16,)` for audio or text.
        num_codes: size of the vocabulary of one token; the id `num_codes` itself is the mask.
        levels: codes per position (residual quantizers have several).
        radices: the digits that a code is made of, the fastest first, when it is made of any; their product is
            `num_codes`.
    """

    grid: tuple[int, ...]
    num_codes: int
    levels: int = 1
    radices: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.grid) <= 3 or min(*self.grid, self.num_codes, self.levels) < 1:
            raise UserError(f'{self} is no token grid; it takes 1 to 3 axes and positive numbers')

    @property
    def length(self) -> int:
        """Number of tokens: every code of every position is one token."""
        return math.prod(self.grid) * self.levels

    @property
    def mask_id(self) -> int:
        return self.num_codes

    def positions(self) -> np.ndarray:
        """Position ids, int32 [length, 4]: time, height, width (0 where there is none), level."""
        axes = len(self.grid)
        index = np.indices((*self.grid, self.levels)).reshape(axes + 1, -1).T
        padded = np.zeros((self.length, 4), np.int32)
        # 2-D grids are (height, width); 1-D ones and the first axis of 3-D ones are time.
        columns = {1: [0], 2: [1, 2], 3: [0, 1, 2]}[axes]
        padded[:, columns] = index[:, :axes]
        padded[:, 3] = index[:, axes]
        return padded


@dataclass(frozen=True, eq=False)
class TokenLayout:
    """The order of the modalities in the one sequence of tokens that the transformer sees."""

    specs: Mapping[str, TokenSpec]

    def __eq__(self, other: object) -> bool:
        # Unlike in a dict, the order of the modalities counts.
        return isinstance(other, TokenLayout) and tuple(self.specs.items()) == tuple(
            other.specs.items()
        )

    def __hash__(self) -> int:
        return hash(tuple(self.specs.items()))

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.specs)

    @property
    def length(self) -> int:
        return sum(spec.length for spec in self.specs.values())

    def slice(self, modality: str) -> slice:
        """Where the tokens of a modality stand. Raises UserError for one that the layout lacks."""
        if modality not in self.specs:
            known = ', '.join(self.specs)
            raise UserError(
                f'modality "{modality}" is not in this model, which has {known}.'
                f'{nearest(modality, self.specs)}'
            )
        start = 0
        for name, spec in self.specs.items():
            if name == modality:
                break
            start += spec.length
        return slice(start, start + self.specs[modality].length)

    def split(self, tokens: Array) -> dict[str, Array]:
        """Cuts `[B, N, ...]` into `{modality: [B, n, ...]}`."""
        return {name: tokens[:, self.slice(name)] for name in self.specs}

    def join(self, parts: Mapping[str, jax.Array]) -> jax.Array:
        """The inverse of `split`."""
        return jnp.concatenate([parts[name] for name in self.specs], axis=1)

    @property
    def mask_ids(self) -> np.ndarray:
        """The mask id of every token, int32 [N]."""
        return np.concatenate([np.full(s.length, s.mask_id, np.int32) for s in self.specs.values()])

    def select(self, modalities: tuple[str, ...]) -> np.ndarray:
        """Which tokens belong to the given modalities, bool [N]."""
        chosen = np.zeros(self.length, bool)
        for name in modalities:
            chosen[self.slice(name)] = True
        return chosen

    def to_json(self) -> list[dict[str, Any]]:
        """A list in the order of the sequence, the inverse of `from_json`."""
        return [
            {'modality': name, **asdict(spec), 'grid': list(spec.grid), 'radices': list(spec.radices)}
            for name, spec in self.specs.items()
        ]

    @classmethod
    def from_json(cls, content: Sequence[Mapping[str, Any]]) -> 'TokenLayout':
        """The layout that `to_json` wrote. Raises KeyError or TypeError for anything else."""
        return cls(
            {
                part['modality']: TokenSpec(
                    tuple(part['grid']), part['num_codes'], part['levels'], tuple(part['radices'])
                )
                for part in content
            }
        )
