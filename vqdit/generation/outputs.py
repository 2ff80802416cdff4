"""Samples as files: PNG, WAV, GIF and text, a picture of them all, and a manifest that says how they were made.

File names are the modality and the index, never anything that a user or a dataset wrote.
"""

import io
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vqdit.diffusion.clock import Task
from vqdit.errors import DiskError, UserError
from vqdit.files import write_bytes, write_json
from vqdit.generation.pictures import Items, draw_table, to_image

FRAME_MILLISECONDS = 100


def new_folder(parent: Path) -> Path:
    """Makes and returns the next of parent/0001, parent/0002, ...; two callers never get the same."""
    number = 1 + max((int(path.name) for path in parent.glob('[0-9]*') if path.name.isdigit()), default=0)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            folder = parent / f'{number:04d}'
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1
    except OSError as error:
        raise DiskError(f'cannot make a folder in {parent}: {error.strerror}; choose another with --out') from error


def empty_folder(folder: Path) -> Path:
    """`folder`, which may not exist yet. Raises UserError when something is in it, so that nothing is lost."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'"{folder}" is not an empty folder; choose another one')
    return folder


def write_samples(
    folder: Path,
    task: Task,
    given: Mapping[str, Items],
    generated: Mapping[str, Items],
    audio_rate: int | None,
    about: Mapping[str, Any],
) -> list[Path]:
    """Writes every given and generated item, `grid.png` and `manifest.json`; returns the paths.

    Args:
        given: for every given modality one item, or one a sample.
        generated: for every generated modality one item a sample.
        audio_rate: in Hz; None where nothing is sound.
        about: what else the manifest tells, such as seeds and settings.
    """
    files = {
        'given': {name: _write_items(folder, f'given_{name}', given[name], audio_rate) for name in task.given},
        'generated': {name: _write_items(folder, name, generated[name], audio_rate) for name in task.generated},
    }
    grid = io.BytesIO()
    draw_table(titled(task, given, generated)).save(grid, 'PNG')
    write_bytes(folder / 'grid.png', grid.getvalue())
    rate = {} if audio_rate is None else {'audio_rate': audio_rate}
    manifest = {'task': str(task), **about, **rate, 'files': files, 'grid': 'grid.png'}
    write_json(folder / 'manifest.json', manifest)
    names = [name for part in files.values() for column in part.values() for name in column]
    return [folder / name for name in [*names, 'grid.png', 'manifest.json']]


def titled(
    task: Task, given: Mapping[str, Items], generated: Mapping[str, Items]
) -> dict[str, Items]:
    """The columns of the table to look at: what is given, then what is generated."""
    columns = {f'given {name}': given[name] for name in task.given}
    return columns | {name: generated[name] for name in task.generated}


def encode_item(item: Any, audio_rate: int | None) -> tuple[str, bytes]:
    """The extension and the content of the file of one item."""
    if isinstance(item, str):
        return 'txt', f'{item}\n'.encode()
    item = np.asarray(item)
    if item.ndim == 1 and audio_rate is not None:
        return 'wav', _wav(item, audio_rate)
    buffer = io.BytesIO()
    if item.ndim == 4:
        first, *rest = [to_image(frame) for frame in item]
        first.save(buffer, 'GIF', save_all=True, append_images=rest, duration=FRAME_MILLISECONDS, loop=0)
        return 'gif', buffer.getvalue()
    to_image(item).save(buffer, 'PNG')
    return 'png', buffer.getvalue()


def _write_items(folder: Path, name: str, items: Items, audio_rate: int | None) -> list[str]:
    names = []
    for index, item in enumerate(items):
        extension, content = encode_item(item, audio_rate)
        names.append(f'{name}_{index:04d}.{extension}')
        write_bytes(folder / names[-1], content)
    return names


def _wav(sound: np.ndarray, rate: int) -> bytes:
    """16-bit mono."""
    buffer = io.BytesIO()
    with wave.open(buffer, 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(32767 * np.clip(sound, -1, 1)).astype('<i2').tobytes())
    return buffer.getvalue()

