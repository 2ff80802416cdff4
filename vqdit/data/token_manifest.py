"""What a token store says of itself: a manifest of the whole, and a record of every shard."""

import functools
import hashlib
import json
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

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise UserError(f'shard_size={self.shard_size} of the token store must be 1 or more')

    @functools.cached_property
    def shards(self) -> list[range]:
        """The examples in each shard."""
        starts = range(0, self.count, self.shard_size)
        return [range(start, min(start + self.shard_size, self.count)) for start in starts]

    @property
    def dtype(self) -> np.dtype:
        """A record: codes in 16 bits where they and their masks fit, else 32; int64 metadata."""
        width = '<u2' if self.layout.mask_ids.max() < 2**16 else '<u4'
        return np.dtype(
            [('codes', width, (self.layout.length,)), *((name, '<i8') for name in self.metadata)]
        )

    @functools.cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that name this manifest."""
        content = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        return {
            'format': FORMAT,
            'count': self.count,
            'shard_size': self.shard_size,
            'layout': self.layout.to_json(),
            'metadata': list(self.metadata),
            'fingerprints': dict(self.fingerprints),
        }

    @classmethod
    def load(cls, folder: Path) -> 'Manifest':
        """Reads the manifest of a store. Raises DataError for none, a damaged or an older one."""
        path = folder / 'manifest.json'
        if not path.exists():
            raise DataError(f'there is no token store in {folder}; run train.py, which writes it')
        stored = read_json(path)
        try:
            if stored['format'] != FORMAT:
                raise DataError(
                    f'{path} has format {stored["format"]}, not {FORMAT}; {remedy(folder)}'
                )
            return cls(
                stored['count'],
                stored['shard_size'],
                TokenLayout.from_json(stored['layout']),
                stored['fingerprints'],
                tuple(stored['metadata']),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f'{path} is damaged ({error!r}); {remedy(folder)}') from error

    def check(self, folder: Path, asked: Mapping[str, Any]) -> None:
        """Compares with the asked parts of a manifest as JSON. Raises UserError if they differ."""
        stored = self.to_json()
        for key, value in asked.items():
            if stored[key] != value:
                raise UserError(
                    f'the tokens in {folder} are of another '
                    f'{_difference(key, stored[key], value)} is asked for; {remedy(folder)}'
                )


def _difference(key: str, stored: Any, asked: Any) -> str:
    """What was written and what is asked for, down to the first entry that differs."""
    if isinstance(stored, dict):
        names = [name for name in {**stored, **asked} if stored.get(name) != asked.get(name)]
        return _difference(f'{key} ({names[0]})', stored.get(names[0]), asked.get(names[0]))
    return f'{key}: {stored!s:.200}, but {asked!s:.200}'


def remedy(folder: Path) -> str:
    return f'delete the folder {folder.parent} and run train.py, which writes it anew'


def shard_path(folder: Path, shard: int) -> Path:
    return folder / f'{shard:05d}.array_record'


def shard_finished(folder: Path, manifest: Manifest, shard: int) -> bool:
    """Whether the shard has been written to its end, for this very manifest."""
    path = shard_path(folder, shard).with_suffix('.json')
    return path.exists() and read_json(path).get('manifest') == manifest.digest


def finish_shard(folder: Path, manifest: Manifest, shard: int) -> None:
    """Records that the shard is whole."""
    path = shard_path(folder, shard).with_suffix('.json')
    write_json(path, _shard_record(folder, manifest, shard))


def verify_shard(folder: Path, manifest: Manifest, shard: int) -> Path:
    """The path of a shard. Raises DataError when it is missing, unfinished or not as written."""
    path = shard_path(folder, shard)
    if not path.with_suffix('.json').exists():
        raise DataError(f'{path} is not finished; run train.py again, which goes on with it')
    if not path.exists():
        raise DataError(f'{path} is missing; {remedy(folder)}')
    written, found = read_json(path.with_suffix('.json')), _shard_record(folder, manifest, shard)
    if written != found:
        raise DataError(f'{path} is damaged: {found}, written as {written}; {remedy(folder)}')
    return path


def _shard_record(folder: Path, manifest: Manifest, shard: int) -> dict[str, Any]:
    """Which examples the shard holds, of which store, and its sha256 as it lies on the disc."""
    examples = manifest.shards[shard]
    return {
        'examples': [examples.start, examples.stop],
        'manifest': manifest.digest,
        'sha256': _sha256(shard_path(folder, shard)),
    }


def _sha256(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
