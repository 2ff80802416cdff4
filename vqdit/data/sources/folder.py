"""A folder of files and a table of them, as the imagefolder and audiofolder of Hugging Face."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vqdit.data.dataset import Example
from vqdit.data.preprocess import Formats, read_file
from vqdit.data.settings import require
from vqdit.data.sources.folder_scan import Item, file_names, refuse_bad, scan
from vqdit.data.sources.metadata import Row, read_metadata
from vqdit.errors import DataError, UserError, nearest


@dataclass(frozen=True)
class FolderSettings:
    """Which folder is read.

    Attributes:
        root: the folder.
        test_fraction: share taken as `test` by a hash of the name, where nothing tells the split.
        max_bad_fraction: share of unusable items up to which they are skipped; more are an error.
    """

    root: str
    test_fraction: float = 0.05
    max_bad_fraction: float = 0.0

    def __post_init__(self) -> None:
        require(self.root != '', 'config.data.root', self.root, 'the folder of the files')
        test, bad = self.test_fraction, self.max_bad_fraction
        require(0 <= test < 1, 'config.data.test_fraction', test, 'in [0, 1)')
        require(0 <= bad <= 1, 'config.data.max_bad_fraction', bad, 'in [0, 1]')


class FolderSource:
    """One split of a folder, prepared.

    An example has the `modalities` asked for (default: all that there are), `name`, `label` and
    `label_name` where there is a column `label`, and the further columns as they are. `rejected`
    lists what is skipped, of all splits. Raises DataError at the start when the folder or more than
    `max_bad_fraction` of it is bad, and later when a file that passed the scan cannot be decoded.
    """

    def __init__(
        self,
        settings: FolderSettings,
        split: str,
        formats: Formats,
        modalities: tuple[str, ...] | None = None,
    ):
        self._formats = formats
        root = Path(settings.root).expanduser()
        rows = read_metadata(root)
        self.modalities = _choose(rows, modalities, root)
        items, self.rejected = scan(rows, root, self.modalities, formats)
        refuse_bad(self.rejected, len(rows), root, settings.max_bad_fraction)
        self._label_ids = _label_ids(items)
        self._items = select_split(items, split, settings.test_fraction, root)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Example:
        item = self._items[index]
        files = {
            modality: read_file(path, modality, item.name, self._formats)
            for modality, path in item.files.items()
        }
        return self._metadata(item) | files

    def column(self, key: str) -> np.ndarray:
        """A column of the table, for every example."""
        rows = [self._metadata(item) for item in self._items]
        for row in rows:
            if key not in row:
                raise UserError(
                    f'{row["name"]} has no "{key}", only {", ".join(row)}.{nearest(key, row)}'
                )
        return np.array([row[key] for row in rows])

    def _metadata(self, item: Item) -> Example:
        example = {**item.values, 'name': item.name}
        if 'label' in item.values:
            name = str(item.values['label'])
            example |= {'label': self._label_ids[name], 'label_name': name}
        return example


def select_split(items: Sequence[Item], split: str, test_fraction: float, root: Path) -> list[Item]:
    """The items of a split; items that state none are `train`.

    Where all are `train`, a hash of the name takes the share `test_fraction` as `test`, so that
    adding files never moves others, and all captions of a file stay together.
    """
    items = [replace(item, split=item.split or 'train') for item in items]
    if all(item.split == 'train' for item in items):
        items = [replace(item, split=_hashed_split(item.name, test_fraction)) for item in items]
    told = sorted({item.split for item in items} | {'train', 'test'})
    if split not in told:
        raise UserError(
            f'{root} has no split "{split}", only {", ".join(told)}.{nearest(split, told)}'
        )
    chosen = [item for item in items if item.split == split]
    if not chosen:
        raise DataError(
            f'{root}: its split "{split}" has no usable item; add some or change test_fraction'
        )
    return chosen


def _hashed_split(name: str, test_fraction: float) -> str:
    digest = hashlib.sha256(name.encode()).digest()
    return 'test' if int.from_bytes(digest[:8], 'big') < test_fraction * 2**64 else 'train'


def _choose(rows: Sequence[Row], modalities: tuple[str, ...] | None, root: Path) -> tuple[str, ...]:
    found = {kind for row in rows for kind in file_names(row, modalities or ())}
    found |= {'text'} if any('text' in row for row in rows) else set()
    known = [name for name in ('image', 'video', 'audio', 'text') if name in found]
    for modality in modalities or ():
        if modality not in known:
            columns = dict.fromkeys(key for row in rows for key, value in row.items() if value)
            kinds = ', '.join(known) or 'files of unknown kinds'
            raise DataError(
                f'{root} has no {modality}, only {kinds}; its table has the columns '
                f'{", ".join(columns)}.{nearest(modality, [*known, *columns])}'
            )
    return tuple(known) if modalities is None else modalities


def _label_ids(items: Sequence[Item]) -> dict[str, int]:
    """A number for every label: itself where all are whole, else its place in the alphabet."""
    names = sorted({str(item.values['label']) for item in items if 'label' in item.values})
    if all(name.isdecimal() for name in names):
        return {name: int(name) for name in names}
    return {name: index for index, name in enumerate(names)}
