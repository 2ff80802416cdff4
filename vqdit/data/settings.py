"""Sections of `config.data` as frozen dataclasses: one place for names, types and defaults."""

from collections.abc import Mapping
from typing import Any, TypeVar, get_origin, get_type_hints

from vqdit.errors import UserError, nearest

T = TypeVar('T')


def read_settings(kind: type[T], section: Mapping[str, Any], where: str) -> T:
    """The dataclass `kind` filled from a section of the config called `where`.

    Lists (as JSON gives them) become tuples and whole numbers pass as float. Raises UserError for a
    key that `kind` does not have and for a value of another type.
    """
    types = get_type_hints(kind)
    values = {}
    for key, value in section.items():
        if key not in types:
            raise UserError(
                f'{where}.{key} is not a setting; it has {", ".join(types)}.{nearest(key, types)}'
            )
        values[key] = _checked(value, types[key], f'{where}.{key}')
    for name in types:
        if name not in values and not hasattr(kind, name):  # a field without a default
            raise UserError(f'{where}.{name} is not set; set it in the config')
    return kind(**values)


def select(kind: type, config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of the config that `kind` has a field for."""
    return {name: config[name] for name in get_type_hints(kind) if name in config}


def require(condition: bool, where: str, value: Any, wanted: str) -> None:
    """Raises UserError, naming the setting and its value, unless the condition holds."""
    if not condition:
        raise UserError(f'{where}={value!r} cannot be used; it must be {wanted}')


def _checked(value: Any, kind: Any, where: str) -> Any:
    wanted = get_origin(kind) or kind
    if wanted is tuple and isinstance(value, list):
        value = tuple(value)
    if wanted is float and type(value) is int:
        value = float(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise UserError(f'{where}={value!r} has the wrong type; it must be {wanted.__name__}')
    return value
