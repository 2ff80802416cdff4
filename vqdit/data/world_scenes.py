"""The scenes of the built-in world: five attributes under one known joint distribution.

    p(scene) = p(shape) p(colour | shape) p(size) p(position | size) p(motion | shape)

Everything that a generative model of the world should reach is computed from this one table.
"""

from bisect import bisect
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np

from vqdit.errors import UserError, nearest

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    'shape': ('circle', 'square', 'triangle', 'cross'),
    'colour': ('red', 'green', 'blue', 'yellow', 'magenta', 'cyan'),
    'size': ('small', 'large'),
    'position': (
        'top left', 'top', 'top right', 'left', 'centre', 'right',
        'bottom left', 'bottom', 'bottom right',
    ),
    'motion': ('still', 'left', 'right', 'up', 'down'),
}  # fmt: skip

# The attributes that each modality shows; the others it leaves to their conditional distribution.
DETERMINED: dict[str, tuple[str, ...]] = {
    'image': ('shape', 'colour', 'size', 'position'),
    'video': ('shape', 'colour', 'size', 'position', 'motion'),
    'audio': ('shape', 'colour', 'size', 'motion'),
    'text': ('shape', 'colour', 'size', 'position', 'motion'),
}

_SHAPE = np.array([0.30, 0.27, 0.23, 0.20])
_COLOUR_GIVEN_SHAPE = np.array(
    [
        [0.27, 0.10, 0.22, 0.18, 0.09, 0.14],
        [0.09, 0.27, 0.14, 0.10, 0.22, 0.18],
        [0.18, 0.14, 0.27, 0.09, 0.10, 0.22],
        [0.14, 0.22, 0.10, 0.27, 0.18, 0.09],
    ]
)
_SIZE = np.array([0.55, 0.45])
_POSITION_GIVEN_SIZE = np.array(
    [
        [0.22, 0.06, 0.16, 0.05, 0.04, 0.06, 0.17, 0.05, 0.19],
        [0.04, 0.14, 0.05, 0.16, 0.30, 0.12, 0.04, 0.10, 0.05],
    ]
)
_MOTION_GIVEN_SHAPE = np.array(
    [
        [0.28, 0.24, 0.16, 0.14, 0.18],
        [0.36, 0.12, 0.22, 0.16, 0.14],
        [0.20, 0.16, 0.14, 0.30, 0.20],
        [0.24, 0.20, 0.20, 0.12, 0.24],
    ]
)


@dataclass(frozen=True)
class Scene:
    """One scene: the index of each attribute's value in `ATTRIBUTES`."""

    shape: int
    colour: int
    size: int
    position: int
    motion: int

    @property
    def indices(self) -> dict[str, int]:
        """Attribute name -> index, in the order of the joint table's axes."""
        return asdict(self)

    @property
    def names(self) -> dict[str, str]:
        """Attribute name -> name of its value."""
        return {name: ATTRIBUTES[name][index] for name, index in asdict(self).items()}


@cache
def joint() -> np.ndarray:
    """p(scene), float64 [shape, colour, size, position, motion]; read-only."""
    table = np.einsum(
        's,sc,z,zp,sm->sczpm',
        _SHAPE, _COLOUR_GIVEN_SHAPE, _SIZE, _POSITION_GIVEN_SIZE, _MOTION_GIVEN_SHAPE,
    )  # fmt: skip
    table.flags.writeable = False
    return table


@cache
def all_scenes() -> tuple[Scene, ...]:
    """Every scene, in the order of the flattened joint table."""
    return tuple(Scene(*indices) for indices in np.ndindex(joint().shape))


@cache
def _cumulative() -> list[float]:
    return np.cumsum(joint().ravel())[:-1].tolist()


def draw_scene(rng: np.random.Generator) -> Scene:
    """A scene drawn from the joint distribution."""
    return all_scenes()[bisect(_cumulative(), rng.random())]


def conditional(given: Mapping[str, int], of: str) -> np.ndarray:
    """p(of | given), float64 [values of `of`], from the joint table."""
    axes = {name: axis for axis, name in enumerate(ATTRIBUTES)}
    index: list[int | slice] = [slice(None)] * len(axes)
    for name, value in given.items():
        index[axes[_known(name)]] = slice(value, value + 1)
    others = tuple(axis for name, axis in axes.items() if name != _known(of))
    weights = joint()[tuple(index)].sum(axis=others)
    return weights / weights.sum()


def entropy(of: str | Iterable[str], given: Iterable[str] = ()) -> float:
    """H(of | given) in nats: the mean surprise of the attributes `of` when `given` are known."""
    known = set(given)
    asked = {of} if isinstance(of, str) else set(of)
    return _marginal_entropy(asked | known) - _marginal_entropy(known)


def _marginal_entropy(names: set[str]) -> float:
    kept = {_known(name) for name in names}
    others = tuple(axis for axis, name in enumerate(ATTRIBUTES) if name not in kept)
    probabilities = joint().sum(axis=others)
    return float(-np.sum(probabilities * np.log(probabilities)))


def _known(name: str) -> str:
    if name not in ATTRIBUTES:
        known = ', '.join(ATTRIBUTES)
        hint = nearest(name, ATTRIBUTES)
        raise UserError(f'The world has no attribute "{name}", only {known}.{hint}')
    return name
