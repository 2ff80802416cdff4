"""Tasks are clocks: the noise level of every token says what is given (0), absent (1) and generated (1 -> 0)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout

GIVEN, ABSENT, GENERATED = 0, 1, 2


@dataclass(frozen=True)
class Task:
    """Which modalities are given and which are generated; the others are absent.

    Written `text,image->audio`; nothing before the arrow is unconditional, several after it joint generation.
    Raises UserError when nothing is generated or a modality stands on both sides.
    """

    given: tuple[str, ...]
    generated: tuple[str, ...]

    def __post_init__(self):
        if not self.generated:
            raise UserError(f'task "{self}" generates nothing; name a modality after "->"')
        both = set(self.given) & set(self.generated)
        if both:
            raise UserError(f'task "{self}" both gives and generates {", ".join(sorted(both))}; choose one')

    @classmethod
    def parse(cls, text: str) -> 'Task':
        """The task of `a,b->c`. Raises UserError when the arrow is missing."""
        given, arrow, generated = text.partition('->')
        if not arrow:
            raise UserError(f'task "{text}" has no "->"; write for example "text->image" or "->image,text"')
        return cls(_names(given), _names(generated))

    def __str__(self) -> str:
        return f'{",".join(self.given)}->{",".join(self.generated)}'

    def roles(self, layout: TokenLayout) -> np.ndarray:
        """GIVEN, ABSENT or GENERATED for every token, int32 [N]. Raises UserError for an unknown modality."""
        roles = np.full(layout.length, ABSENT, np.int32)
        for name in self.given:
            roles[layout.slice(name)] = GIVEN
        for name in self.generated:
            roles[layout.slice(name)] = GENERATED
        return roles


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(',') if name.strip())


def clock_of(roles: jax.Array, t: jax.Array) -> jax.Array:
    """The clock fp32 [B, N] of `roles int32 [B, N]` when the generated tokens stand at `t`, [B, N] or [B, 1]."""
    return jnp.where(roles == GIVEN, 0.0, jnp.where(roles == ABSENT, 1.0, jnp.broadcast_to(t, roles.shape)))


def stratified_times(key: jax.Array, batch: int) -> jax.Array:
    """`batch` noise levels in (0, 1], one in every 1/batch-th, in random order; fp32 [batch].

    Each is uniform on its own, so estimates stay unbiased, with less variance than independent draws
    (Kingma et al. 2021, arXiv:2107.00630, appendix I.1).
    """
    order, shift = jax.random.split(key)
    strata = jax.random.permutation(order, batch)
    return 1.0 - (strata + jax.random.uniform(shift, (batch,))) / batch


@dataclass(frozen=True)
class TaskMixture:
    """Random tasks for training: `tasks` maps a written task to its weight.

    Every modality that a task generates has a noise level of its own, so that the model meets all mixtures of them.
    Raises UserError when no task or no positive weight is given, or a task names an unknown modality.
    """

    tasks: Mapping[str, float]
    layout: TokenLayout

    def __post_init__(self):
        if not self.tasks or min(self.tasks.values()) < 0 or sum(self.tasks.values()) <= 0:
            raise UserError(f'the task weights {dict(self.tasks)} must be positive numbers')
        self._table()

    def _table(self) -> np.ndarray:
        return np.stack([Task.parse(text).roles(self.layout) for text in self.tasks])

    def draw(self, key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
        """Roles int32 [B, N] and clock fp32 [B, N] of `batch` random tasks."""
        choose, *times = jax.random.split(key, 1 + len(self.layout.specs))
        weights = np.fromiter(self.tasks.values(), np.float32)
        chosen = stratified_choice(choose, weights, batch)
        roles = jnp.asarray(self._table())[chosen]
        levels = [jnp.broadcast_to(stratified_times(k, batch)[:, None], (batch, spec.length))
                  for k, spec in zip(times, self.layout.specs.values())]
        return roles, clock_of(roles, jnp.concatenate(levels, axis=1))


def stratified_choice(key: jax.Array, weights: Sequence[float] | np.ndarray, batch: int) -> jax.Array:
    """`batch` indices int32 drawn in proportion to `weights`, as evenly as `batch` allows, in random order."""
    bounds = np.cumsum(weights) / np.sum(weights)
    times = stratified_times(key, batch)
    index = jnp.searchsorted(jnp.asarray(bounds[:-1], jnp.float32), times, side='left')
    return index.astype(jnp.int32)
