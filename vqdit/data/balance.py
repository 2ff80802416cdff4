"""Class-balanced sampling: rare classes are seen more often than they occur."""

from dataclasses import dataclass

import numpy as np

from vqdit.data.dataset import Dataset, Example, read_column
from vqdit.data.settings import require
from vqdit.errors import DataError


@dataclass(frozen=True)
class BalanceSettings:
    """The column of the class, and the power in p(class) ~ count ** power: 0 uniform, 1 natural."""

    key: str = 'label'
    power: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.power <= 1, 'balance.power', self.power, 'in [0, 1]')


class Balanced:
    """Draws with replacement, as many as the dataset has: a class, then one of its examples.

    The draw for example i is a pure function of (seed, i, 1). Raises DataError when there is none.
    """

    def __init__(self, dataset: Dataset, settings: BalanceSettings, seed: int = 0):
        self._dataset, self._seed = dataset, seed
        keys = read_column(dataset, settings.key)
        if not len(keys):
            raise DataError('there is no example to balance; add data')
        _, classes, counts = np.unique(keys, return_inverse=True, return_counts=True)
        self._order = np.argsort(classes, kind='stable')  # the examples, class after class
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        weights = counts**settings.power
        self._cumulative = np.cumsum(weights / weights.sum())

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Example:
        return self._dataset[self.source_index(range(len(self))[index])]

    def source_index(self, index: int) -> int:
        """Which example of the dataset example `index` is."""
        which, where = np.random.default_rng((self._seed, index, 1)).random(2)
        last = len(self._cumulative) - 1  # rounding may leave the sum just below 1
        chosen = min(int(np.searchsorted(self._cumulative, which, side='right')), last)
        start, stop = self._starts[chosen], self._starts[chosen + 1]
        return int(self._order[start + int(where * (stop - start))])

    def column(self, key: str) -> np.ndarray:
        """A column of the dataset, for every draw."""
        return read_column(self._dataset, key)[
            [self.source_index(index) for index in range(len(self))]
        ]
