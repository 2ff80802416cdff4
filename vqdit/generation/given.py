"""What the user gives: `modality=value`, where the value is a file or, for text, the text itself."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from vqdit.data.preprocess import Formats, read_file
from vqdit.data.preprocess.text import decode_text, prepare_text
from vqdit.data.preprocess.video import PICTURES
from vqdit.errors import DataError, UserError, nearest

EXTENSIONS: dict[str, tuple[str, ...]] = {
    'image': PICTURES,
    'audio': ('.wav', '.flac', '.ogg', '.mp3', '.aif', '.aiff'),
    'video': ('.gif', '.webp', '.png', '.mp4', '.webm', '.mkv', '.mov', '.avi'),
    'text': ('.txt',),
}


def parse_given(assignments: Sequence[str]) -> dict[str, str]:
    """`['text=a red circle', 'image=photo.png']` as a dictionary.

    Raises UserError for one without `=` and for a modality that is given twice.
    """
    given: dict[str, str] = {}
    for assignment in assignments:
        modality, equals, value = assignment.partition('=')
        modality = modality.strip()
        if not equals or not value.strip():
            raise UserError(f'--given {assignment!r} has no value; write --given modality=value')
        if modality in given:
            raise UserError(f'--given {modality} stands there twice; give each modality once')
        given[modality] = value
    return given


def read_given(
    given: Mapping[str, str], formats: Formats, modalities: Collection[str]
) -> dict[str, list[Any]]:
    """One prepared item for every given modality: uint8 pictures, float32 sound, str.

    Args:
        formats: the sizes and rates of the model.
        modalities: those that the model has.

    Raises UserError for a modality that the model lacks and for a file that is missing, unreadable or of another kind.
    """
    return {modality: [_read(modality, value, formats, modalities)] for modality, value in given.items()}


def _read(modality: str, value: str, formats: Formats, modalities: Collection[str]) -> Any:
    if modality not in modalities:
        known = ', '.join(modalities)
        raise UserError(
            f'--given {modality}: the model has no such modality, only {known}.{nearest(modality, modalities)}'
        )
    try:
        if modality == 'text':
            return _read_text(value, formats)
        _check_path(modality, Path(value))
        return read_file(Path(value), modality, value, formats)
    except DataError as error:
        raise UserError(f'--given {modality}: {error}') from error


def _read_text(value: str, formats: Formats) -> str:
    """The text, or what stands in the file where the value names a text file that exists."""
    if value.endswith(EXTENSIONS['text']) and Path(value).is_file():
        try:
            return prepare_text(decode_text(Path(value).read_bytes(), value), value, formats.text)
        except OSError as error:
            raise DataError(f'{value}: it cannot be read ({error.strerror})') from error
    return prepare_text(value, repr(value), formats.text)


def _check_path(modality: str, path: Path) -> None:
    known = EXTENSIONS[modality]
    if not path.exists():
        raise DataError(f'the file "{path}" is not there{_near_file(path)}')
    if path.is_dir() and modality == 'video':
        return
    if not path.is_file():
        raise DataError(f'"{path}" is no file; give one that ends in {", ".join(known)}')
    if path.suffix.lower() not in known:
        raise DataError(f'"{path}" is not of this kind; give a file that ends in {", ".join(known)}')


def _near_file(path: Path) -> str:
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return f'.{nearest(path.name, names)}' if nearest(path.name, names) else '; check the path'
