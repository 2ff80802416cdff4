"""Several sources made one by a shared key: pictures and sounds of the same thing."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vqdit.data.dataset import Dataset, Example, read_column
from vqdit.data.preprocess.text import TextSettings, prepare_text
from vqdit.data.settings import require
from vqdit.errors import DataError, UserError, nearest


@dataclass(frozen=True)
class PairSettings:
    """The column that paired examples share, and the seed of the draw."""

    key: str = 'label'
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.seed >= 0, 'config.data.seed', self.seed, '0 or more')


class Paired:
    """Example i is the anchor's, with the other modalities drawn at random among equal keys.

    The draw is a pure function of (seed, i, modality), whichever other modalities are read. `text`,
    when it is asked for and no part of its own, is the name of the label. Metadata that parts share
    is the anchor's. Raises UserError for an anchor or a modality that is no part, DataError for
    keys that a part lacks.
    """

    def __init__(
        self,
        parts: Mapping[str, Dataset],
        settings: PairSettings = PairSettings(),
        anchor: str | None = None,
        with_text: bool = False,
    ):
        self._anchor = anchor or next(iter(parts))
        if self._anchor not in parts:
            hint = nearest(self._anchor, parts)
            raise UserError(f'the anchor "{anchor}" is none of {", ".join(parts)}.{hint}')
        self._parts, self._seed, self._with_text = dict(parts), settings.seed, with_text
        keys = {name: read_column(part, settings.key) for name, part in parts.items()}
        self._keys = keys[self._anchor]
        self._places = {name: group(column) for name, column in keys.items()}
        _check_same(self._places, settings.key)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        example = dict(self._parts[self._anchor][index])
        for name, part in self._parts.items():
            if name != self._anchor:
                places = self._places[name][self._keys[index]]
                rng = np.random.default_rng((self._seed, index, zlib.crc32(name.encode())))
                example = part[int(places[rng.integers(len(places))])] | example
        if self._with_text:
            example['text'] = prepare_text(example['label_name'], f'label {index}', TextSettings())
        return example

    def column(self, key: str) -> np.ndarray:
        """A column of the anchor, for every example."""
        return read_column(self._parts[self._anchor], key)


def group(keys: np.ndarray) -> dict[object, np.ndarray]:
    """The places at which each key stands."""
    return {key: np.flatnonzero(keys == key) for key in np.unique(keys)}


def _check_same(places: Mapping[str, Mapping[object, np.ndarray]], key: str) -> None:
    every = set().union(*places.values())
    for name, part in places.items():
        if missing := sorted(map(str, every - set(part))):
            raise DataError(
                f'the {name} part has no {key} {", ".join(missing[:10])}, which another part has; '
                'pair sources of the same classes'
            )
