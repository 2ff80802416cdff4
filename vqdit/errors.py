"""The errors meant for people: one line that names the thing, its value and the remedy.

Every class carries the exit code of the scripts (0 is success). Anything else that is raised is a
fault of vqdit.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class VqditError(Exception):
    """Base of all errors that are told to the user without a traceback."""

    exit_code = 1


class UserError(VqditError):
    """A mistake in flags, config or arguments."""

    exit_code = 2


class DataError(VqditError):
    """Data found missing, broken or unusable."""

    exit_code = 3


class CheckpointError(VqditError):
    """A checkpoint that is damaged, missing, or made by something else."""

    exit_code = 4


class NonFiniteError(VqditError):
    """Training produced NaN or infinity several steps in a row."""

    exit_code = 5


class DiskError(VqditError):
    """Too little space, or a path that cannot be written."""

    exit_code = 6


class LostPeerError(VqditError):
    """Another process died, hung or disagrees; or this one did not move for too long."""

    exit_code = 7


class Preempted(VqditError):
    """Asked to stop; everything is saved and the same command goes on from here."""

    exit_code = 75


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean "x"?` for the known name nearest to `name`, or an empty string."""
    match = difflib.get_close_matches(name, [str(item) for item in known], n=1, cutoff=0.5)
    return f' Did you mean "{match[0]}"?' if match else ''


def choose(registry: Mapping[str, Any], name: str, what: str) -> Any:
    """registry[name]. Raises UserError naming the known ones."""
    if name not in registry:
        raise UserError(f'{what} "{name}" is unknown; choose one of {", ".join(registry)}.{nearest(name, registry)}')
    return registry[name]
