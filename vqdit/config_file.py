"""Config files and their overrides.

A config file is a Python file with `get_config() -> ConfigDict`. Its settings can be changed one by one, each in the
type that it has. Config files are the only code that a user names; everything else in vqdit is named by registry keys.
"""

import ast
import difflib
import runpy
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from vqdit.errors import UserError, VqditError, nearest

_PARSERS: dict[type, flags.ArgumentParser] = {
    bool: flags.BooleanParser(),
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
    str: flags.ArgumentParser(),
}


def load_config(path: str) -> ConfigDict:
    """The locked result of `get_config()` in a file; `file.py:x` calls `get_config('x')`.

    Raises UserError for a file that is missing, fails, or returns no ConfigDict.
    """
    file, colon, argument = path.partition(':')
    if not Path(file).is_file():
        raise UserError(f'the config file "{file}" is not there.{_near_file(Path(file))}')
    try:
        get_config = runpy.run_path(file).get('get_config')
        config = get_config(*([argument] if colon else [])) if get_config else None
    except VqditError:
        raise
    except Exception as error:  # whatever the file does wrong
        raise UserError(f'{file}{_line(error, file)}: {type(error).__name__}: {error}') from error
    if not isinstance(config, ConfigDict):
        raise UserError(f'{file} must define get_config() that returns a ConfigDict')
    return config.lock()


def _near_file(path: Path) -> str:
    match = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob('*.py')], n=1)
    return f' Did you mean "{path.parent / match[0]}"?' if match else ''


def _line(error: Exception, file: str) -> str:
    if isinstance(error, SyntaxError):
        return f', line {error.lineno}'
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f', line {lines[-1]}' if lines else ''


def override(config: ConfigDict, path: str, text: str) -> None:
    """Sets the setting at the dotted `path` to `text`, read in the type that the setting has.

    A setting that is None takes any Python literal. A section that names what it is of, as a quantizer or a sampler
    is, is replaced as a whole by a mapping with a `name`, and so is a name alone, as of a schedule. Raises UserError
    for an unknown setting or a wrong type.
    """
    settings = dict(leaves(config))
    if path not in settings:
        section = [name for name in settings if name.startswith(f'{path}.')]
        if f'{path}.name' in section and _is_named(literal(text)):
            _replace(config, path, literal(text))
            return
        if section:
            raise UserError(f'--config.{path} is a section; set one of {", ".join(section)}')
        raise UserError(f'the config has no setting "{path}".{nearest(path, settings)}')
    if isinstance(settings[path], str) and _is_named(literal(text)):
        _replace(config, path, literal(text))
        return
    *parents, key = path.split('.')
    for parent in parents:
        config = config[parent]
    config[key] = _read(text, settings[path], path)


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get('name'), str)


def _replace(config: ConfigDict, path: str, section: dict[str, Any]) -> None:
    with config.unlocked(), config.ignore_type():
        *parents, key = path.split('.')
        for parent in parents:
            config = config[parent]
        config[key] = ConfigDict(section)


def _read(text: str, current: Any, path: str) -> Any:
    kind = type(current)
    try:
        if kind in _PARSERS:
            return _PARSERS[kind].parse(text)
        value = literal(text)
        if kind is tuple:
            return tuple(value) if isinstance(value, list | tuple) else (value,)
        return value if current is None else kind(value)
    except (TypeError, ValueError) as error:
        raise UserError(
            f'--config.{path}={text} has the wrong type; it must be {kind.__name__}, such as {current!r}'
        ) from error


def literal(text: str) -> Any:
    """A Python literal, or the text itself where it is none."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def leaves(config: ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Every setting as its dotted path and its value."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value
