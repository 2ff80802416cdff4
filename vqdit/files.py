"""Small files written whole or not at all: a temporary file, flushed to disk, then renamed."""

import json
import os
import tempfile
from pathlib import Path
from typing import IO, Any

from vqdit.errors import DataError, DiskError


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes `content` so that readers see either the old file or the new one.

    Raises DiskError when the disc is full or the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
        try:
            _fill(handle, content)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise DiskError(
            f'cannot write {path}: {error.strerror}; free space or choose another folder'
        ) from error


def _fill(handle: int, content: bytes) -> None:
    """Writes an open temporary file to the disc, readable by all."""
    with os.fdopen(handle, 'wb') as file:
        file.write(content)
        file.flush()
        os.fchmod(handle, 0o644)
        os.fsync(handle)


def write_text(path: str | Path, content: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, content.encode())


def write_json(path: str | Path, content: Any) -> None:
    """`write_bytes` of indented JSON with a final newline."""
    write_text(path, json.dumps(content, indent=2) + '\n')


def read_json(path: str | Path) -> Any:
    """The content of a JSON file. Raises DataError, naming the file, when it is not JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f'{path} is not valid JSON ({error}); restore or delete it') from error


def append_jsonl(path: str | Path, row: dict[str, Any]) -> None:
    """Appends one line of JSON; a kill tears at most that line, and a torn one is replaced.

    Raises DiskError when the disc is full or the file cannot be written.
    """
    line = (json.dumps(row) + '\n').encode()
    try:
        with open(path, 'ab+') as file:
            file.truncate(_whole_lines(file))
            file.write(line)
    except OSError as error:
        raise DiskError(
            f'cannot append to {path}: {error.strerror}; free space, then resume'
        ) from error


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file but a torn last line. Raises DataError for any other one."""
    *lines, last = Path(path).read_bytes().split(b'\n')
    rows = [_parse(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    try:
        return [*rows, json.loads(last)] if last.strip() else rows
    except (ValueError, RecursionError):
        return rows


def _parse(path: str | Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f'{path}, line {number} is not valid JSON ({error}); correct or delete that line'
        ) from error


def _whole_lines(file: IO[bytes]) -> int:
    """The bytes up to the end of the last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        newline = file.read(end - start).rfind(b'\n')
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
