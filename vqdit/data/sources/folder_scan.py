"""The scan of a folder: every row of its table becomes an item or is rejected with a reason."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from absl import logging

from vqdit.data.preprocess import Formats, read_file
from vqdit.data.preprocess.audio import check_audio_header
from vqdit.data.preprocess.image import open_image
from vqdit.data.preprocess.text import prepare_text
from vqdit.data.preprocess.video import PICTURES
from vqdit.data.sources.metadata import FILE_COLUMNS, SPLITS, Row
from vqdit.errors import DataError, nearest

SOUNDS = ('.wav', '.flac', '.ogg', '.mp3', '.aiff', '.aif')
FILMS = ('.mp4', '.mkv', '.webm', '.mov', '.avi', '')  # without an ending: a folder of frames
DECODED_BYTES = 64 * 2**20  # up to here every file is decoded, above it only
DECODED_ITEMS = 500  # of them, evenly spread, and the header of the others


@dataclass(frozen=True)
class Item:
    """A usable row: the file of each modality, the caption and the other columns."""

    name: str
    split: str
    files: dict[str, Path]
    values: dict[str, Any]


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used, and why."""

    name: str
    reason: str


def scan(
    rows: Sequence[Row], root: Path, modalities: tuple[str, ...], formats: Formats
) -> tuple[list[Item], list[Rejected]]:
    """Checks path and caption of every row and looks at its file, in small folders at all of it."""
    listed, rejected = _list_items(rows, root, modalities, formats)
    size = sum(path.stat().st_size for item in listed for path in item.files.values())
    step = 1 if size <= DECODED_BYTES else max(1, len(listed) // DECODED_ITEMS)
    items = []
    for index, item in enumerate(listed):
        try:
            for modality, path in item.files.items():
                if index % step == 0:
                    read_file(path, modality, item.name, formats)
                else:
                    _check_header(path, modality, item.name)
            items.append(item)
        except DataError as error:
            rejected.append(Rejected(item.name, str(error)))
    return items, rejected


def refuse_bad(rejected: Sequence[Rejected], total: int, root: Path, allowed: float) -> None:
    """Raises DataError, naming the first, when more than the share `allowed` is rejected."""
    lines = [f'  {entry.reason}' for entry in rejected[:5]]
    if len(rejected) > len(lines):
        lines.append(f'  and {len(rejected) - len(lines)} more')
    reasons = '\n'.join(lines)
    if len(rejected) > allowed * total:
        raise DataError(
            f'{len(rejected)} of {total} items of {root} cannot be used:\n{reasons}\n'
            f'Mend them, or have them skipped by config.data.max_bad_fraction (now {allowed:g})'
        )
    if rejected:
        logging.warning(
            '%d of %d items of %s are skipped:\n%s', len(rejected), total, root, reasons
        )


def find_file(root: Path, name: str, folders: bool = False) -> Path:
    """The regular file `name` under `root`; with `folders`, a folder too.

    Raises DataError, without opening anything, for paths that lead out of the root, links included,
    and for what is no file: a pipe would block for ever.
    """
    if os.path.isabs(name) or '..' in PurePosixPath(name).parts or '\0' in name:
        raise DataError(f'{name!r}: the path must be relative and stay in its folder; correct it')
    try:
        resolved = (root / name).resolve(strict=True)
        mode = resolved.stat().st_mode
    except OSError as error:
        raise DataError(
            f'{name}: the file cannot be found ({error.strerror}); restore it or remove its row'
        ) from error
    if not resolved.is_relative_to(root.resolve()):
        raise DataError(f'{name}: it is a link out of its folder; copy the file instead')
    if not (stat.S_ISREG(mode) or (folders and stat.S_ISDIR(mode))):
        raise DataError(f'{name}: it is no regular file; remove it')
    return resolved


def file_names(row: Row, modalities: Sequence[str]) -> dict[str, str]:
    """The file of each modality, by the columns of that name or by the ending of `file_name`."""
    names = {
        key: row[key] for key in FILE_COLUMNS[1:] if row.get(key) and isinstance(row[key], str)
    }
    name = row.get('file_name')
    if name and isinstance(name, str):
        names.setdefault(_kind(name, modalities), name)
    return names


def _list_items(
    rows: Sequence[Row], root: Path, modalities: tuple[str, ...], formats: Formats
) -> tuple[list[Item], list[Rejected]]:
    items: dict[tuple[str, str], Item] = {}
    splits: dict[str, str] = {}
    rejected = []
    for number, row in enumerate(rows, 1):
        name = next((str(row[key]) for key in FILE_COLUMNS if row.get(key)), f'row {number}')
        try:
            # Several captions of a file are several items, whether captions are asked for or not.
            if (entry := (name, str(row.get('text')))) in items:
                raise DataError(f'{name}: it is listed twice with the same text; remove a row')
            item = _read_row(row, name, root, modalities, formats)
            _check_split(item, splits)
            items[entry] = item
        except DataError as error:
            rejected.append(Rejected(name, str(error)))
    return list(items.values()), rejected


def _read_row(
    row: Row, name: str, root: Path, modalities: tuple[str, ...], formats: Formats
) -> Item:
    split, names, files = row['split'], file_names(row, modalities), {}
    if split and split not in SPLITS.values():
        raise DataError(
            f'{name}: its split "{split}" is unknown; correct it.{nearest(split, SPLITS)}'
        )
    for modality in modalities:
        if modality != 'text':
            if modality not in names:
                raise DataError(f'{name}: it has no {modality}; name its file or remove the row')
            files[modality] = find_file(root, names[modality], folders=modality == 'video')
    values = {
        key: value for key, value in row.items() if key not in (*FILE_COLUMNS, 'text', 'split')
    }
    if 'text' in modalities:
        values['text'] = prepare_text(row.get('text'), name, formats.text)
    return Item(name, split, files, values)


def _check_split(item: Item, splits: dict[str, str]) -> None:
    """Notes the split of a file. Raises DataError for a second one: it would be trained and tested on."""
    split = item.split or 'train'
    if splits.setdefault(item.name, split) != split:
        raise DataError(
            f'{item.name}: it is in the splits "{splits[item.name]}" and "{split}"; choose one'
        )


def _kind(name: str, modalities: Sequence[str]) -> str:
    ending = PurePosixPath(name).suffix.lower()
    animated = ending == '.gif' and 'video' in modalities and 'image' not in modalities
    if ending in FILMS or animated:
        return 'video'
    if ending in SOUNDS:
        return 'audio'
    return 'image' if ending in PICTURES else 'unknown'


def _check_header(path: Path, modality: str, name: str) -> None:
    """What can be told of a file without decoding it: of films nothing."""
    checks = {'image': open_image, 'audio': check_audio_header}
    if modality not in checks:
        return
    try:
        with open(path, 'rb') as file:
            checks[modality](file, name)
    except OSError as error:
        raise DataError(
            f'{name}: it cannot be read ({error.strerror}); restore or remove it'
        ) from error
