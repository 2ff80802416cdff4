"""What a dataset is: a length and examples by index, each a pure function of its index."""

from typing import Any, Protocol

import numpy as np

from vqdit.errors import UserError

Example = dict[str, Any]


class Dataset(Protocol):
    """Random access to examples; `__getitem__` may be called from several threads at once."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example:
        """The example: prepared modalities and metadata. Raises IndexError past the end."""


def read_column(dataset: Dataset, key: str) -> np.ndarray:
    """The value of `key` of every example [len(dataset)], read without decoding any media.

    Raises UserError when the dataset keeps no such column.
    """
    column = getattr(dataset, 'column', None)
    if column is None:
        raise UserError(
            f'{type(dataset).__name__} has no "{key}" to group by; use a tfds or folder source'
        )
    return column(key)
