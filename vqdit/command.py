"""What the scripts share: flags, config files, and errors that end in a few lines and an exit code.

A config file is a Python file with `get_config() -> ConfigDict`; `--config.a.b=value` overrides one
of its settings, in the type that it has. Config files are the only code that a flag can name.
"""

import ast
import difflib
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import ConfigDict

from vqdit.errors import UserError, VqditError, nearest

INTERRUPTED = 130  # the exit code that shells expect after Ctrl-C
_PREFIX = '--config.'
_PARSERS: dict[type, flags.ArgumentParser] = {
    bool: flags.BooleanParser(),
    int: flags.IntegerParser(),
    float: flags.FloatParser(),
    str: flags.ArgumentParser(),
}
flags.disclaim_key_flags()  # `config_flag` defines a flag of the script, not of this module


def run(main: Callable[[], None]) -> NoReturn:
    """Runs a script and exits: 0, or the exit code of the VqditError that `main` raised.

    Anything else that is raised is a fault of ours: it ends in a traceback and 1.
    """
    sys.exit(execute(main, sys.argv))


def execute(
    main: Callable[[], None], argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS
) -> int:
    """As `run`, but returns the exit code."""
    try:
        if {'-h', '--help', '-help'} & set(argv[1:]):
            sys.stdout.write(_help(main, flag_values))
            return 0
        parse(argv, flag_values)
        main()
    except VqditError as error:
        sys.stderr.write(f'{error}\n')
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write('interrupted\n')
        return INTERRUPTED
    return 0


def config_flag(flag_values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
    """Defines `--config=FILE` and `--config.key=value`; after parsing, `.value` is a locked ConfigDict."""
    return flags.DEFINE(
        _ConfigParser(), 'config', None,
        'config file, such as configs/quickstart.py; --config.key=value changes one setting',
        flag_values=flag_values, required=True,
    )  # fmt: skip


def parse(argv: Sequence[str], flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Parses the flags of a script. Raises UserError for whatever is wrong with them."""
    has_config = 'config' in flag_values
    plain = [argv[0]]
    overrides = []
    arguments = iter(argv[1:])
    for argument in arguments:
        if has_config and argument.startswith(_PREFIX):
            overrides.append(_split_override(argument, arguments))
        else:
            plain.append(argument)
    _parse_plain(plain, flag_values)
    for path, text in overrides:
        override(flag_values['config'].value, path, text)


def _parse_plain(argv: Sequence[str], flag_values: flags.FlagValues) -> None:
    try:
        _, *stray = flag_values(argv)
    except flags.UnrecognizedFlagError as error:
        name = error.flagname
        raise UserError(f'--{name} is no flag; see --help.{nearest(name, flag_values)}') from error
    except flags.IllegalFlagValueError as error:
        missing = re.match(r'flag --(\w+)=None:', str(error))  # the only fault that None can have
        message = f'--{missing[1]} is missing: {flag_values[missing[1]].help}' if missing else str(error)
        raise UserError(message) from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if stray:
        hint = nearest(stray[0].partition('=')[0], flag_values)
        raise UserError(f'"{stray[0]}" stands alone; flags are written --name=value.{hint}')


def _split_override(argument: str, following: Iterator[str]) -> tuple[str, str]:
    """The path and the value of `--config.path=value` or `--config.path value`."""
    path, equals, text = argument.removeprefix(_PREFIX).partition('=')
    if not equals:
        text = next(following, '--')
    if not equals and text.startswith('--'):
        raise UserError(f'{argument} has no value; write {argument}=VALUE')
    return path, text


def override(config: ConfigDict, path: str, text: str) -> None:
    """Sets the setting at the dotted `path` to `text`, read in the type that the setting has.

    A setting that is None takes any Python literal. Raises UserError for an unknown setting or a wrong type.
    """
    settings = dict(_leaves(config))
    if path not in settings:
        section = [name for name in settings if name.startswith(f'{path}.')]
        if section:
            raise UserError(f'--config.{path} is a section; set one of {", ".join(section)}')
        raise UserError(f'the config has no setting "{path}".{nearest(path, settings)}')
    *parents, key = path.split('.')
    for parent in parents:
        config = config[parent]
    config[key] = _read(text, settings[path], path)


def _read(text: str, current: Any, path: str) -> Any:
    kind = type(current)
    try:
        if kind in _PARSERS:
            return _PARSERS[kind].parse(text)
        value = _literal(text)
        if kind is tuple:
            return tuple(value) if isinstance(value, list | tuple) else (value,)
        return value if current is None else kind(value)
    except (TypeError, ValueError) as error:
        raise UserError(
            f'--config.{path}={text} has the wrong type; it must be {kind.__name__}, such as {current!r}'
        ) from error


def _literal(text: str) -> Any:
    """A Python literal, or the text itself where it is none."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def _leaves(config: ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


class _ConfigParser(flags.ArgumentParser):
    """Loads the config that a flag names."""

    syntactic_help = 'a Python file with get_config()'

    def parse(self, argument: str) -> ConfigDict:
        return load_config(argument)


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


def _help(main: Callable[[], None], flag_values: flags.FlagValues) -> str:
    """The docstring of the script and its flags."""
    return f'{sys.modules[main.__module__].__doc__ or ""}\n{flag_values.main_module_help()}\n'
