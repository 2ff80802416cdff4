"""Rows of tables and checks that the codecs of sound share; see `layout`."""

from collections.abc import Iterator
from typing import Any

from vqdit.errors import CheckpointError
from vqdit.interop.layout import SAME, Conversion, Row

CONVOLUTION = Conversion(lambda x: x.transpose(2, 1, 0), lambda y, shape: y.transpose(2, 1, 0))
TRANSPOSED = Conversion(lambda x: x[::-1].transpose(1, 2, 0), lambda y, shape: y.transpose(2, 0, 1)[::-1])
PROJECTION = Conversion(lambda x: x.T[..., None], lambda y, shape: y[..., 0].T)

Rows = Iterator[Row]
Config = dict[str, Any]


def module_rows(ours: str, theirs: str, conversion: Conversion) -> Rows:
    """The rows of a module with kernel and bias."""
    yield Row(f'params/{ours}/kernel', (f'{theirs}.weight',), conversion)
    yield Row(f'params/{ours}/bias', (f'{theirs}.bias',), SAME)


def check_settings(config: Config, **known: Any) -> None:
    """Raises CheckpointError for a setting that is not the only one that can be computed."""
    for name, value in known.items():
        if config.get(name) not in (None, value):
            raise CheckpointError(f'the codec has {name}={config[name]}, which is not supported; only {value} is')
