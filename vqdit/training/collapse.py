"""The warning that a codebook starts to collapse, from the perplexity of its codes in the training log."""

from collections.abc import Mapping
from typing import Any

import jax

DECAY = 0.95
"""Of the averages over the steps."""
FALLEN = 0.5
"""Share of its highest average below which a perplexity is reported."""
FIRST = 100
"""Steps before anything is said: codebooks start one after another, and the averages fill."""


class CollapseWatch:
    """Follows every metric `perplexity...` of a training."""

    def __init__(self) -> None:
        self._averages: dict[str, float] = {}
        self._highest: dict[str, float] = {}
        self._count = 0

    def read(self, metrics: Mapping[str, Any]) -> list[str]:
        """What is wrong, once for every halving, after the metrics of another step."""
        self._count += 1
        followed = jax.device_get({name: value for name, value in metrics.items() if name.startswith('perplexity')})
        return [line for name, value in followed.items() for line in self._follow(name, float(value))]

    def _follow(self, name: str, value: float) -> list[str]:
        average = DECAY * self._averages.get(name, value) + (1 - DECAY) * value
        highest = max(self._highest.get(name, 0.0), average)
        self._averages[name], self._highest[name] = average, highest
        if self._count < FIRST or average >= FALLEN * highest:
            return []
        # The next line comes when it has halved again.
        self._highest[name] = average
        return [f'the codebook starts to collapse: {name} fell from {highest:.4g} to {average:.4g}; '
                'lower the learning rate, replace dead codes sooner (dead_share), or use finite_scalar']
