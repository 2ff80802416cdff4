"""The token store: the codes of every example, written once: training never runs an encoder.

    tokens/train/manifest.json        what the codes are, and what made them
    tokens/train/00000.array_record   one record an example: its codes, then its metadata
    tokens/train/00000.json           what is in that shard and its sha256, written when it is whole

A store that was interrupted goes on with the shards that are missing; the result is the same, byte
for byte.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from vqdit.data.batches import Batch, evaluation_batches
from vqdit.data.dataset import Dataset, Example
from vqdit.data.token_manifest import (
    Manifest,
    finish_shard,
    shard_finished,
    shard_path,
    verify_shard,
)
from vqdit.errors import DataError, DiskError, UserError
from vqdit.files import write_json
from vqdit.tokenizers.spec import TokenLayout

KEPT_IN_MEMORY = 256 * 2**20
"""Stores of up to so many bytes are read once and kept: 4 instead of 30 microseconds an example."""


def write_store(
    folder: str | Path,
    split: str,
    dataset: Dataset,
    encode: Callable[[Batch], Any],
    layout: TokenLayout,
    fingerprints: Mapping[str, str],
    metadata: Sequence[str] = (),
    shard_size: int = 4096,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda examples: None,
    process_index: int = 0,
    process_count: int = 1,
) -> None:
    """Writes what is missing of `folder`/`split`; a finished store is left as it is.

    Args:
        encode: codes int [batch_size, N] of a batch as `evaluation_batches` gives it; each row must
            be a pure function of its example.
        fingerprints: by name, of all that the codes depend on.
        metadata: names of integers in the examples to keep beside the codes, such as `label`.
        shard_size: examples in a file, for a store that is begun.
        progress: called with the number of examples just done; what it raises stops the writing,
            and finished shards stay.
        process_index, process_count: this process writes every `process_count`-th shard; the store
            is whole once all processes have returned.

    Raises UserError when the folder holds a store of something else, DataError for codes outside of
    the layout, DiskError when the disc is full.
    """
    folder = Path(folder) / split
    manifest = _open_manifest(
        folder, Manifest(len(dataset), shard_size, layout, fingerprints, tuple(metadata))
    )
    for shard in range(process_index, len(manifest.shards), process_count):
        part = _Part(dataset, manifest.shards[shard])
        if shard_finished(folder, manifest, shard):
            progress(len(part))
            continue
        batches = evaluation_batches(part, batch_size, process_index=0, process_count=1)
        with closing(batches):
            records = _records(batches, encode, manifest, progress)
            _write_shard(shard_path(folder, shard), records)
        finish_shard(folder, manifest, shard)


class TokenStore:
    """Random access to the codes from any thread: `store[i]` is `{'codes': int32 [N], **metadata}`.

    Args:
        layout, fingerprints: what it is expected to hold, if given.

    Raises UserError when it holds something else, DataError when it is unfinished or damaged (every
    shard is hashed).
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        layout: TokenLayout | None = None,
        fingerprints: Mapping[str, str] | None = None,
    ):
        folder = Path(folder) / split
        self.manifest = Manifest.load(folder)
        asked = {
            'layout': layout and layout.to_json(),
            'fingerprints': fingerprints and dict(fingerprints),
        }
        self.manifest.check(
            folder, {key: value for key, value in asked.items() if value is not None}
        )
        self._paths = [
            verify_shard(folder, self.manifest, shard) for shard in range(len(self.manifest.shards))
        ]
        small = len(self) * self.manifest.dtype.itemsize <= KEPT_IN_MEMORY
        self._rows = self._read(self._paths) if small else _Records(self._paths, self.manifest.dtype)

    def __len__(self) -> int:
        return self.manifest.count

    def __getitem__(self, index: int) -> Example:
        row = self._rows[range(len(self))[index]]
        return {'codes': row['codes'].astype(np.int32)} | {
            name: int(row[name]) for name in self.manifest.metadata
        }

    def column(self, name: str) -> np.ndarray:
        """One kind of metadata of all examples, int64 [len]. Raises UserError for one not kept."""
        if name not in self.manifest.metadata:
            raise UserError(
                f'the token store keeps no "{name}" beside its codes, only '
                f'{list(self.manifest.metadata)}'
            )
        # Copied shard by shard: a view would keep all codes in memory.
        return np.concatenate([self._read([path])[name].copy() for path in self._paths])

    def _read(self, paths: Sequence[Path]) -> np.ndarray:
        """The records of some shards, in the manifest's dtype [count]."""
        content = b''.join(
            record for path in paths for record in ArrayRecordReader(str(path)).read_all()
        )
        return np.frombuffer(content, self.manifest.dtype)


class _Records:
    """Records read one by one from the shards."""

    def __init__(self, paths: list[Path], dtype: np.dtype):
        self._source, self._dtype = ArrayRecordDataSource(paths), dtype

    def __getitem__(self, index: int) -> np.void:
        return np.frombuffer(self._source[index], self._dtype)[0]


class _Part:
    """Consecutive examples of a dataset."""

    def __init__(self, dataset: Dataset, examples: range):
        self._dataset, self._examples = dataset, examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._dataset[self._examples[index]]


def _open_manifest(folder: Path, asked: Manifest) -> Manifest:
    """The manifest of the store, the asked one but for `shard_size`; written if missing."""
    if not (folder / 'manifest.json').exists():
        write_json(folder / 'manifest.json', asked.to_json())
        return asked
    stored = Manifest.load(folder)
    stored.check(folder, asked.to_json() | {'shard_size': stored.shard_size})
    return stored


def _records(
    batches: Iterator[Batch],
    encode: Callable[[Batch], Any],
    manifest: Manifest,
    progress: Callable[[int], None],
) -> Iterator[bytes]:
    """The records of all examples in the batches."""
    for batch in batches:
        codes = np.asarray(encode(batch))
        _check_codes(codes, manifest.layout)
        rows = np.empty(len(codes), manifest.dtype)
        rows['codes'] = codes
        for name in manifest.metadata:
            rows[name] = batch[name]
        kept = rows[batch['mask']]
        yield from (row.tobytes() for row in kept)
        progress(len(kept))


def _check_codes(codes: np.ndarray, layout: TokenLayout) -> None:
    if codes.shape[1:] != (layout.length,):
        raise DataError(
            f'codes have the shape {codes.shape}, the layout asks for [B, {layout.length}]'
        )
    for name, part in layout.split(codes).items():
        if part.min() < 0 or part.max() >= layout.specs[name].num_codes:
            raise DataError(
                f'the codes of {name} are in [{part.min()}, {part.max()}], outside of '
                f'[0, {layout.specs[name].num_codes}); its tokenizer and its spec disagree'
            )


def _write_shard(path: Path, records: Iterator[bytes]) -> None:
    """Writes a whole shard under a temporary name, flushes it to the disc and renames it."""
    temporary = path.with_name(f'.{path.name}.part')
    try:
        # Uncompressed: the bytes do not depend on a library's version, and codes hardly shrink.
        writer = ArrayRecordWriter(str(temporary), 'group_size:1,uncompressed')
        for record in records:
            with _disc_errors(path):
                writer.write(record)
        with _disc_errors(path):
            writer.close()
            with open(temporary, 'rb') as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _disc_errors(path: Path) -> Iterator[None]:
    """Raises DiskError for an error in the block, in which ArrayRecord raises RuntimeError."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise DiskError(
            f'cannot write {path}: {error}; free space, then run the same command again'
        ) from error
