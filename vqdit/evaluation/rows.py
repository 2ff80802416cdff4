"""What an evaluation says: one measured figure a row."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Row:
    """One figure of the report.

    Attributes:
        task: what was done, such as `text->image`.
        metric: what was measured.
        value: a fraction where the unit says so, never per cent.
        unit: of the value and the ceiling.
        count: examples behind the value, each counted once.
        ceiling: what a perfect model would show by the same measure: the judge on real data, the known entropy,
            the expected noise of a distance; None where it is not known.
        margin: half of the 95 % confidence interval of the value, where it is an estimate over noise too.
    """

    task: str
    metric: str
    value: float
    unit: str
    count: int
    ceiling: float | None = None
    margin: float | None = None


def share(task: str, metric: str, right: Any, ceiling: float | None = None) -> Row:
    """The row of how many examples are right; `right` is bool [n]."""
    return Row(task, metric, float(np.mean(right)), 'fraction', len(right), ceiling)
