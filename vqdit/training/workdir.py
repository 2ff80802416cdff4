"""A workdir belongs to one config and, while a run lasts, to one run."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TextIO, TypeAlias

import jax
import ml_collections

import vqdit
from vqdit import files
from vqdit.errors import DiskError, UserError

FORMAT = 1
MOST_DIFFERENCES = 12
ABSENT = '(absent)'
FREE = ('mesh', 'logging', 'checkpoints', 'reliability', 'evaluation')
"""Sections that do not change what is learned: a workdir goes on with others."""

Config: TypeAlias = ml_collections.ConfigDict | Mapping[str, Any]


class Lock:
    """Keeps every other run out of a workdir, from `with` to the end of the process at the latest.

    The kernel holds the lock (flock on workdir/LOCK), so that kill -9 frees it; the text of the file only
    names the holder. Of several processes of one run the first takes it.
    """

    def __init__(self, workdir: str | Path):
        self._path = Path(workdir) / 'LOCK'
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        """Raises UserError naming the holder, and DiskError when the workdir cannot be written."""
        if jax.process_index() > 0:
            return self
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = open(self._path, 'a+', encoding='utf-8')
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise UserError(
                f'{self._path.parent} is in use by {_holder(self._path)}; '
                'wait for that run, stop it, or choose another --workdir'
            ) from None
        except OSError as error:
            raise DiskError(f'cannot lock {self._path}: {error.strerror}; choose another workdir') from error
        file.truncate(0)
        started = time.strftime('%Y-%m-%d %H:%M:%S')
        json.dump({'host': socket.gethostname(), 'pid': os.getpid(), 'start': started}, file)
        file.flush()
        self._file = file
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()


def save_config(workdir: str | Path, config: Config) -> None:
    """Writes workdir/config.json: the config as JSON beside the format and the version that wrote it."""
    content = {'format': FORMAT, 'version': vqdit.__version__, 'config': _plain(config)}
    files.write_json(Path(workdir) / 'config.json', content)


def load_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """The saved config, locked; its sequences are tuples. Raises UserError without one of this format."""
    return ml_collections.ConfigDict(_tuples(_saved(workdir))).lock()


def claim(workdir: str | Path, config: Config) -> None:
    """Saves the config into the workdir; where one was, it must be the same but for the sections in `FREE`.

    Raises UserError with the differing keys (old -> new) and the remedy.
    """
    if (Path(workdir) / 'config.json').exists():
        _check_same(workdir, _learned(_saved(workdir)), _learned(_plain(config)))
    save_config(workdir, config)


def _learned(config: dict[str, Any]) -> dict[str, Any]:
    return _flat({name: section for name, section in config.items() if name not in FREE})


def _check_same(workdir: str | Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    pairs = {key: (old.get(key, ABSENT), new.get(key, ABSENT)) for key in sorted(old | new)}
    lines = [f'  {key}: {before} -> {after}' for key, (before, after) in pairs.items() if before != after]
    if lines:
        if len(lines) > MOST_DIFFERENCES:
            lines = [*lines[:MOST_DIFFERENCES], f'  and {len(lines) - MOST_DIFFERENCES} more']
        raise UserError(
            f'{workdir} was made with another config:\n' + '\n'.join(lines) + '\n'
            'drop these changes to go on with it, or choose another --workdir to begin anew'
        )


def _saved(workdir: str | Path) -> dict[str, Any]:
    """The config part of config.json as JSON gives it."""
    path = Path(workdir) / 'config.json'
    if not path.is_file():
        raise UserError(f'{path} is missing; make the workdir with train.py --workdir={workdir}')
    content = files.read_json(path)
    content = content if isinstance(content, dict) else {}
    if content.get('format') != FORMAT or 'config' not in content:
        raise UserError(
            f'{workdir} has format {content.get("format")} (made by vqdit {content.get("version")}), '
            f'this version needs {FORMAT}; use that version, or choose another --workdir'
        )
    return content['config']


def _plain(config: Config) -> dict[str, Any]:
    """A config as JSON gives it back: plain dicts and lists."""
    plain = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    return json.loads(json.dumps(plain))


def _flat(value: Any, prefix: str = '') -> dict[str, Any]:
    """{'data.image.size': 32, ...} of nested dicts; an empty dict counts as a value."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f'{prefix}.{key}' if prefix else key)
    return flat


def _tuples(value: Any) -> Any:
    """Sequences as tuples, which can be hashed."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _holder(path: Path) -> str:
    """`host pid 7 since ...` from a lock file."""
    try:
        holder = json.loads(path.read_text())
        return f'process {holder["pid"]} on {holder["host"]} since {holder["start"]}'
    except (OSError, ValueError, KeyError, TypeError):
        return 'another run'
