"""What the scripts share: flags, and errors that end in a few lines and an exit code."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from absl import flags
from ml_collections import ConfigDict

from vqdit.config_file import load_config, override
from vqdit.errors import UserError, VqditError, nearest

INTERRUPTED = 130  # the exit code that shells expect after Ctrl-C
_PREFIX = '--config.'
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


class _ConfigParser(flags.ArgumentParser):
    """Loads the config that a flag names."""

    syntactic_help = 'a Python file with get_config()'

    def parse(self, argument: str) -> ConfigDict:
        return load_config(argument)


def _help(main: Callable[[], None], flag_values: flags.FlagValues) -> str:
    """The docstring of the script and its flags."""
    return f'{sys.modules[main.__module__].__doc__ or ""}\n{flag_values.main_module_help()}\n'
