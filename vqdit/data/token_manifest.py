"""What a token store says of itself: `manifest.json` for the whole, and a record of rows and sha256 for every shard."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqdit.errors import DataError, UserError
from vqdit.files import read_json, write_json
from vqdit.tokenizers.spec import TokenLayout

FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a store holds.

    Attributes:
        count: examples.
        shard_size: examples in a shard; the last one may have fewer.
        layout: of the codes.
        fingerprints: by name, of all that made the codes.
        metadata: names of the integers that each example carries beside its codes.
    """

    count: int
    shard_size: int
    layout: TokenLayout
    fingerprints: Mapping[str, str]
    metadata: tuple[str, ...] = ()

    @property
    def shards(self) -> list[range]:
        """The examples in each shard."""
        starts = range(0, self.count, self.shard_size)
        return [range(start, min(start + self.shard_size, self.count)) for start in starts]

    @property
    def dtype(self) -> np.dtype:
        """A record: codes of 16 bits where all of them and their masks fit, else 32; then int64 metadata."""
        width = '<u2' if self.layout.mask_ids.max() < 2**16 else '<u4'
        return np.dtype([('codes', width, (self.layout.length,)), *((name, '<i8') for name in self.metadata)])

    def to_json(self) -> dict[str, Any]:
        return {'format': FORMAT, 'count': self.count, 'shard_size': self.shard_size, 'layout': self.layout.to_json(),
                'metadata': list(self.metadata), 'fingerprints': dict(self.fingerprints)}

    @classmethod
    def load(cls, folder: Path) -> 'Manifest':
        """Reads the manifest of a store. Raises DataError when there is none, or a damaged or an older one."""
        path = folder / 'manifest.json'
        if not path.exists():
            raise DataError(f'there is no token store in {folder}; run train.py, which writes it')
        stored = read_json(path)
        try:
            if stored['format'] != FORMAT:
                raise DataError(f'{path} has format {stored["format"]}, this version reads {FORMAT}; {remedy(folder)}')
            return cls(stored['count'], stored['shard_size'], TokenLayout.from_json(stored['layout']),
                       stored['fingerprints'], tuple(stored['metadata']))
        except (KeyError, TypeError) as error:
            raise DataError(f'{path} is damaged ({error!r}); {remedy(folder)}') from error

    def check(self, folder: Path, asked: Mapping[str, Any]) -> None:
        """Compares with the `asked` parts of a manifest as JSON. Raises UserError naming the first that differs."""
        stored = self.to_json()
        for key, value in asked.items():
            if stored[key] != value:
                raise UserError(f'the tokens in {folder} have {key} {stored[key]}, but {value} is asked for; '
                                f'{remedy(folder)}')


def remedy(folder: Path) -> str:
    return f'delete the folder {folder.parent} and run train.py, which writes it anew'


def shard_path(folder: Path, shard: int) -> Path:
    return folder / f'{shard:05d}.array_record'


def shard_finished(folder: Path, shard: int) -> bool:
    """Whether the shard has been written to its end."""
    return shard_path(folder, shard).with_suffix('.json').exists()


def finish_shard(folder: Path, shard: int, rows: int) -> None:
    """Records that the shard is whole."""
    path = shard_path(folder, shard)
    write_json(path.with_suffix('.json'), {'rows': rows, 'sha256': _sha256(path)})


def verify_shard(folder: Path, shard: int, rows: int) -> Path:
    """The path of a shard that is as it was written. Raises DataError when it is missing, unfinished or changed."""
    path = shard_path(folder, shard)
    if not shard_finished(folder, shard):
        raise DataError(f'{path} is not finished; run train.py again, which goes on with it')
    if not path.exists():
        raise DataError(f'{path} is missing; {remedy(folder)}')
    recorded, found = read_json(path.with_suffix('.json')), {'rows': rows, 'sha256': _sha256(path)}
    if recorded != found:
        raise DataError(f'{path} is damaged: it has {found}, but was written as {recorded}; {remedy(folder)}')
    return path


def _sha256(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
