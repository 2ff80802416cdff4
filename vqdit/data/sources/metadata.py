"""The table of a folder: Hugging Face's metadata.csv or metadata.jsonl, or LJSpeech's list."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from vqdit.data.preprocess.text import decode_text
from vqdit.errors import DataError

Row = dict[str, Any]

FILE_COLUMNS = ('file_name', 'image', 'audio', 'video')
TEXT_COLUMNS = ('text', 'caption', 'transcription', 'prompt')
SPLITS = {
    'train': 'train', 'test': 'test', 'validation': 'validation',
    'training': 'train', 'testing': 'test',
    'val': 'validation', 'valid': 'validation', 'dev': 'validation',
}  # fmt: skip


def read_metadata(root: Path) -> list[Row]:
    """The rows of every table at the root and in the folders of the splits.

    File columns are relative to the root and `text` is called so whatever its alias. `split` is
    what a column or the first folder of the path tells, else empty. Raises DataError, naming the
    table and the line.
    """
    try:
        if not root.is_dir():
            raise DataError(f'the folder {root} does not exist; set config.data.root to one')
        splits = sorted(path for path in root.iterdir() if path.name in SPLITS and path.is_dir())
        tables = [table for folder in (root, *splits) if (table := find_table(folder))]
        if not tables:
            raise DataError(
                f'{root} has no metadata.csv or metadata.jsonl; write one with file_name and text'
            )
        rows = [
            _place(row, table.parent.relative_to(root))
            for table in tables
            for row in read_table(table)
        ]
    except OSError as error:
        raise DataError(
            f'{error.filename} cannot be read ({error.strerror}); change its permissions'
        ) from error
    if not rows:
        raise DataError(f'{tables[0]} lists no file; add rows with file_name and text')
    return rows


def find_table(folder: Path) -> Path | None:
    """The table of a folder, if any. Raises DataError for two, since one would go unread."""
    tables = [
        table for name in ('metadata.csv', 'metadata.jsonl') if (table := folder / name).is_file()
    ]
    if len(tables) > 1:
        raise DataError(f'{folder} has both metadata.csv and metadata.jsonl; remove one of them')
    return tables[0] if tables else None


def read_table(table: Path) -> list[Row]:
    """The rows of one table, the columns as they are there but for `text`, called so."""
    content = decode_text(table.read_bytes(), str(table))
    if table.suffix == '.jsonl':
        rows = _read_json_lines(content, table)
    elif (table.parent / 'wavs').is_dir() and '|' in content.partition('\n')[0]:
        rows = _read_ljspeech(content)
    else:
        rows = _read_csv(content, table)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if rows and not set(columns) & set(FILE_COLUMNS):
        raise DataError(
            f'{table} has no column "file_name"; its columns are {", ".join(map(repr, columns))}'
        )
    alias = next((name for name in TEXT_COLUMNS if name in columns), None)
    return [{'text' if key == alias else key: value for key, value in row.items()} for row in rows]


def _read_csv(content: str, table: Path) -> list[Row]:
    reader = csv.reader(io.StringIO(content, newline=''), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header):
            raise DataError(f'{table} has a column twice: {", ".join(header)}; rename one')
        rows = []
        for cells in reader:
            if cells and len(cells) != len(header):
                raise DataError(
                    f'{table}, line {reader.line_num}: {len(cells)} cells, {len(header)} columns; '
                    'quote cells that hold commas'
                )
            if cells:
                rows.append(dict(zip(header, cells)))
    except csv.Error as error:
        raise DataError(f'{table}, line {reader.line_num}: {error}; check its quotes') from error
    return rows


def _read_json_lines(content: str, table: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(content.split('\n'), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_unique, parse_constant=_no_constant)
            if not isinstance(row, dict):
                raise ValueError('it is no object of columns')
        except (ValueError, RecursionError) as error:
            raise DataError(
                f'{table}, line {number}: {error}; write one JSON object a line'
            ) from error
        rows.append(row)
    return rows


def _read_ljspeech(content: str) -> list[Row]:
    """`id|text` or `id|text|normalised text` without a header; the sounds are wavs/id.wav."""
    cells = [line.split('|') for line in content.splitlines() if line.strip()]
    return [
        {'file_name': f'wavs/{row[0]}.wav', 'text': row[-1] if len(row) > 1 else ''}
        for row in cells
    ]


def _place(row: Row, folder: Path) -> Row:
    """The row with its paths relative to the root and its split."""
    paths = {
        key: value for key in FILE_COLUMNS if (value := row.get(key)) and isinstance(value, str)
    }
    placed = {key: PurePosixPath(folder) / path for key, path in paths.items()}
    first = next((path.parts[0] for path in placed.values()), '')
    split = str(row.get('split') or (first if first in SPLITS else ''))
    return {
        **row,
        **{key: str(path) for key, path in placed.items()},
        'split': SPLITS.get(split, split),
    }


def _unique(pairs: Iterable[tuple[str, Any]]) -> Row:
    row: Row = {}
    for key, value in pairs:
        if key in row:
            raise ValueError(f'it has "{key}" twice')
        row[key] = value
    return row


def _no_constant(name: str) -> None:
    raise ValueError(f'{name} is not JSON')
