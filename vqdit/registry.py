"""From a config to objects: names are looked up in registries only, settings are those of what the name stands for."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from vqdit.errors import UserError, nearest


def choose(registry: Mapping[str, Any], name: str, what: str) -> Any:
    """registry[name]. Raises UserError naming the known ones."""
    if name not in registry:
        raise UserError(f'{what} "{name}" is unknown; choose one of {", ".join(registry)}.{nearest(name, registry)}')
    return registry[name]


def settings_of(kind: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, inspect.Parameter]:
    """The parameters of `kind` that are not `given` by the program."""
    return {name: p for name, p in inspect.signature(kind).parameters.items() if name not in given}


def construct(registry: Mapping[str, Callable[..., Any]], settings: Mapping[str, Any] | str, path: str,
              parts: Mapping[str, Mapping[str, Callable[..., Any]]] | None = None, default: str = '',
              **given: Any) -> Any:
    """What the registry makes of `settings`: a mapping of `name` (else `default`) and options, or the name alone.

    Args:
        path: of the settings in the config, for errors.
        parts: registries of options that are built themselves, by the option's name, where a name or a mapping is
            given. An option that is None keeps its default.
        given: what the program passes to those that ask for it.

    Raises UserError for an unknown name, an unknown option, naming the nearest, or one that is missing.
    """
    options = {'name': settings} if isinstance(settings, str) else dict(settings)
    name = options.pop('name', default)
    kind = choose(registry, name, f'{path}.name')
    known = settings_of(kind, given)
    options = {option: value for option, value in options.items() if value is not None}
    for option in options:
        if option not in known:
            takes = f'takes {", ".join(known)}' if known else 'takes none'
            raise UserError(f'{path}.{option} is no setting of "{name}", which {takes}.{nearest(option, known)}')
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise UserError(f'{path}.{option} is missing; "{name}" takes {", ".join(known)}')
    built = {option: construct(parts[option], value, f'{path}.{option}', parts, **given)
             if parts and option in parts and isinstance(value, str | Mapping) else value
             for option, value in options.items()}
    asked = inspect.signature(kind).parameters
    return kind(**built, **{name: value for name, value in given.items() if name in asked})
