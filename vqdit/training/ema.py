"""Moving averages of parameters, and averages of any length after the fact.

With decays b_n the average after n steps weighs the parameters after step k with

    (1)  w_k = (1 - b_k) b_(k+1) ... b_n

The power average (EDM2, arXiv:2312.02696, section 3.1) has b_n = (1 - 1 / n)^(g + 1), and by (1)

    (2)  w_k = (k^(g + 1) - (k - 1)^(g + 1)) / n^(g + 1)

so that its length is a share of the training, whatever that is. A sum of stored averages, from different steps and of
different exponents g, comes as close as can be to one that nobody tracked.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.training.state import Tree

Decay = Callable[[jax.Array], jax.Array]
"""The decay as a function of the number of steps taken before."""


def warmed(decay: float) -> Decay:
    """min(decay, (1 + step) / (10 + step)): the start is forgotten quickly."""
    return lambda step: jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def power(exponent: float) -> Decay:
    """That of (2), which forgets the start at once."""
    return lambda step: (step / (1.0 + step)) ** (exponent + 1.0)


def update_average(average: Tree, params: Tree, decay: float | Decay, step: jax.Array) -> Tree:
    """b average + (1 - b) params, in fp32, after the optimizer's step; a number is `warmed`."""
    b = decay(step) if callable(decay) else warmed(decay)(step)
    return jax.tree.map(lambda a, p: b * a + (1 - b) * p.astype(jnp.float32), average, params)


class Average(NamedTuple):
    """A power average: the `exponent` g, after so many `steps`."""

    exponent: float
    steps: int


def deviation_of(exponent: float) -> float:
    """The standard deviation of the weights (2) over the steps n, for many steps (equation (6))."""
    return float(np.sqrt(exponent + 1) / ((exponent + 2) * np.sqrt(exponent + 3)))


def exponent_of(deviation: float) -> float:
    """The inverse of `deviation_of`: EDM2 speaks of averages by their deviation, such as 0.05 and 0.1.

    Raises UserError for one that no average has: it lies in (0, 0.288].
    """
    if not 0 < deviation <= deviation_of(0.0):
        raise UserError(f'the deviation {deviation} of a power average is not above 0 and at most 0.288')
    square = deviation**-2
    return float(np.roots([1, 7, 16 - square, 12 - square]).real.max())


def weights_of(average: Average, length: int) -> np.ndarray:
    """(2), float64 [length] for the parameters after step 1, 2, ...; zero after the average's last step."""
    k = np.minimum(np.arange(length + 1), average.steps) / average.steps
    return np.diff(k ** (average.exponent + 1))


def reconstruction(stored: Sequence[Average], wanted: Average) -> np.ndarray:
    """What to multiply the stored averages with, float64 [n], so that their sum weighs the parameters as the wanted
    average would, as nearly as can be (algorithm 3); a stored one is reproduced exactly.

    The memory is that of the stored averages times their last step, in float64. Raises UserError when none is stored
    from the last step of the wanted one: what comes between two stored steps is lost.
    """
    length = max((average.steps for average in stored), default=0)
    if wanted.steps not in {average.steps for average in stored}:
        raise UserError(f'no average of step {wanted.steps} is stored; choose a step at which averages were stored')
    profiles = np.stack([weights_of(average, length) for average in stored], axis=1)
    return np.linalg.lstsq(profiles, weights_of(wanted, length), rcond=1e-12)[0]


def combined(averages: Sequence[Tree], weights: np.ndarray) -> Tree:
    """The weighted sum of trees, in float64 before it is fp32: the weights are large and of both signs."""
    def add(*leaves: jax.Array) -> np.ndarray:
        return sum(w * np.asarray(leaf, np.float64) for w, leaf in zip(weights, leaves)).astype(np.float32)
    return jax.tree.map(add, *averages)
