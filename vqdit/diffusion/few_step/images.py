"""Few-step models of images, in the form in which an image DiT is trained and sampled (`gaussian.published`).

All on the straight line, and answering as SiT does, except that

    mean flow, shortcut   are told fp32 [B, 2]: 1 - t and the length t - s of a stride, and answer the average velocity
    consistency           is told 250 log(sigma / alpha), and answers what `consistency.bounded` makes clean latents of

Without a stride the first two are flow matching, so that every solver takes them.
"""

from dataclasses import dataclass, field, replace
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.diffusion.clock import stratified_times
from vqdit.diffusion.few_step.average_velocity import AverageVelocity
from vqdit.diffusion.few_step.consistency import (
    Levels,
    bounded,
    consistency_levels,
    consistency_loss,
    level_at,
    place_of,
)
from vqdit.diffusion.few_step.mean_flow import Guide, adaptive, guide, mean_flow_loss, unguided
from vqdit.diffusion.few_step.shortcut import guided_below, shortcut_loss
from vqdit.diffusion.gaussian.paths import Flow, log_snr
from vqdit.diffusion.gaussian.published import FlowMatching, Network
from vqdit.diffusion.gaussian.times import Times, log_normal, logit_normal
from vqdit.diffusion.guidance import Guidance
from vqdit.errors import UserError

Parts = dict[str, jax.Array]


@dataclass(frozen=True)
class _OnTheLine(FlowMatching):
    """Its path and its solver are not to be chosen."""

    path: Flow = field(default_factory=Flow, init=False)
    solver: str = field(default='stride', init=False)


@dataclass(frozen=True)
class MeanFlow(_OnTheLine):
    """The average velocity, learned from its own derivative (arXiv:2505.13447).

    Attributes:
        times: of the two ends of a stride.
        flow_share: of the examples that have no stride.
        power: of the weight of the errors, see `adaptive`.
        guidance: of the flow whose averages are learned; samples are then guided for the price of one evaluation.
        mixed: k of `mean_flow`: how much of the guided target is the network's own answer. With 1 - 1 / weight the
            targets have no more noise than without guidance.

    Raises UserError for shares outside of [0, 1].
    """

    times: Times = field(default_factory=lambda: logit_normal(-0.4))
    flow_share: float = 0.75
    power: float = 1.0
    guidance: Guidance | None = None
    mixed: float = 0.0

    def __post_init__(self):
        _check_share(self.flow_share)
        if not 0 <= self.mixed < 1:
            raise UserError(f'the share of own answers in guided targets lies in [0, 1), not {self.mixed}')

    def told(self, t: jax.Array, s: jax.Array | None = None) -> jax.Array:
        return _stride(t, s)

    def loss(self, key: jax.Array, network: Network, latents: jax.Array,
             without: Network | None = None) -> tuple[jax.Array, Parts]:
        ends, noise_key = jax.random.split(key)
        r, t = self._ends(ends, len(latents))
        average, guided = _average(self, network, latents), cast(Guide, unguided)
        if self.guidance:
            guided = guide(self.guidance, average, _average(self, without, latents), self.mixed)
        noise = jax.random.normal(noise_key, latents.shape, latents.dtype)
        squared = mean_flow_loss(average, self.path, latents, noise, r, t, guided)
        return jnp.mean(adaptive(squared, self.power)), {'velocity_error': jnp.mean(squared) / latents[0].size}

    def _ends(self, key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
        """r <= t, each [batch]."""
        first, second, choose = jax.random.split(key, 3)
        a, b = (self.times(self.path, stratified_times(draw, batch)) for draw in (first, second))
        t = jnp.maximum(a, b)
        return jnp.where(jax.random.bernoulli(choose, self.flow_share, (batch,)), t, jnp.minimum(a, b)), t


@dataclass(frozen=True)
class Shortcut(_OnTheLine):
    """Strides of 1, 1/2, 1/4 ... 1 / `finest`, each taught by two of half its length (arXiv:2410.12557).

    Half of the shortest stride counts as none. `flow_share` of the examples have no stride. With a `guidance` all
    strides are of the guided flow, while the answer without a stride is that of the data, which needs guidance to be
    sampled. Raises UserError for a share outside of [0, 1] and a `finest` that is no power of two.
    """

    finest: int = 128
    flow_share: float = 0.75
    guidance: Guidance | None = None

    def __post_init__(self):
        _check_share(self.flow_share)
        if not _is_power_of_two(self.finest):
            raise UserError(f'the finest stride of a shortcut model is 1/{self.finest}; choose a power of two, as 128')

    def told(self, t: jax.Array, s: jax.Array | None = None) -> jax.Array:
        return _stride(t, s, self._shortest)

    @property
    def _shortest(self) -> float:
        """What is shorter counts as no stride."""
        return 0.75 / self.finest

    def grid(self, steps: int) -> jax.Array:
        """Equal steps. Raises UserError for strides that are not taught."""
        if not _is_power_of_two(steps) or steps > self.finest:
            raise UserError(f'a shortcut model cannot take {steps} steps, but 1, 2, 4 ... {self.finest}')
        return super().grid(steps)

    def loss(self, key: jax.Array, network: Network, latents: jax.Array,
             without: Network | None = None) -> tuple[jax.Array, Parts]:
        ends, noise_key = jax.random.split(key)
        t, half = self._strides(ends, len(latents))
        average = teacher = _average(self, network, latents)
        if self.guidance:
            teacher = guided_below(self._shortest, self.guidance, average, _average(self, without, latents))
        noise = jax.random.normal(noise_key, latents.shape, latents.dtype)
        errors = shortcut_loss(average, self.path, latents, noise, t, half, teacher) / latents[0].size
        return jnp.mean(errors), {'velocity_error': jnp.mean(errors)}

    def _strides(self, key: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
        """t and half of the length of a stride, each [batch]; any t where there is none."""
        level, place, times, choose = jax.random.split(key, 4)
        count = 2.0 ** jax.random.randint(level, (batch,), 0, int(np.log2(self.finest)) + 1)
        t = jnp.ceil(jax.random.uniform(place, (batch,), minval=1e-6) * count) / count
        flows = jax.random.bernoulli(choose, self.flow_share, (batch,))
        return jnp.where(flows, stratified_times(times, batch), t), jnp.where(flows, 0.0, 0.5 / count)


@dataclass(frozen=True)
class Consistency(_OnTheLine):
    """From any noise level at once to clean latents, trained without a teacher (arXiv:2310.14189).

    Attributes:
        levels: how many neighbours agree; the bias is first order in their distance, the variance grows with them.
            Beside a number, a function of the training step, as `consistency.doubled`.
        times: how often each is trained.
        deviation: of the latents.
        smallest, largest: sigma / alpha at the first and at the last level.

    Raises UserError for fewer than two levels.
    """

    solver: str = field(default='renoise', init=False)
    levels: Levels = 80
    times: Times = field(default_factory=lambda: log_normal(-1.1, 2.0))
    deviation: float = 1.0
    smallest: float = 0.002
    largest: float = 80.0

    def __post_init__(self):
        if isinstance(self.levels, int) and self.levels < 2:
            raise UserError(f'consistency needs 2 levels or more to agree, not {self.levels}')

    def at(self, step: jax.Array) -> 'Consistency':
        return replace(self, levels=self.levels(step)) if callable(self.levels) else self

    def told(self, t: jax.Array) -> jax.Array:
        return -125.0 * log_snr(self.path, t)

    def read(self, out: jax.Array, z: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        answer, rest = jnp.split(out, [z.shape[-1]], axis=-1)
        return bounded(lambda *_: answer, self.path, self.deviation, self.smallest)(z, t), rest

    def grid(self, steps: int) -> jax.Array:
        """The level of the first step is the noisiest. Raises UserError for fewer than one."""
        super().grid(steps)
        rising = consistency_levels(self.path, steps, self.smallest, self.largest)
        return jnp.append(rising[:0:-1], 0.0)

    def loss(self, key: jax.Array, network: Network, latents: jax.Array,
             without: Network | None = None) -> tuple[jax.Array, Parts]:
        draw, noise_key = jax.random.split(key)
        t, s = self._neighbours(self.times(self.path, stratified_times(draw, len(latents))))
        function = lambda z, t: self.read(network(z, self.told(t)), z, t)[0]
        noise = jax.random.normal(noise_key, latents.shape, latents.dtype)
        distances = consistency_loss(function, self.path, latents, noise, t, s)
        ratio = lambda t: self.path.sigma(t) / self.path.alpha(t)
        return jnp.mean(distances / (ratio(t) - ratio(s))), {'distance': jnp.mean(distances)}

    def _neighbours(self, times: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The levels [B] around `times [B]`, the higher one first."""
        ends, count = (self.smallest, self.largest), cast(int, self.levels)  # `at` has made a number of it
        index = jnp.clip(jnp.ceil(place_of(self.path, times, *ends) * count), 1, count)
        return level_at(self.path, index / count, *ends), level_at(self.path, (index - 1) / count, *ends)


def _stride(t: jax.Array, s: jax.Array | None, shortest: float = 0.0) -> jax.Array:
    """[..., 2]: 1 - t and t - s, none where s is not said or the stride is shorter than the `shortest`."""
    length = jnp.zeros_like(t) if s is None else t - s
    return jnp.stack([1.0 - t, jnp.where(length < shortest, 0.0, length)], axis=-1)


def _average(process: 'MeanFlow | Shortcut', network: Network | None, latents: jax.Array) -> AverageVelocity:
    """What the network answers. Raises ValueError where there is none."""
    if network is None:
        raise ValueError('guidance in training needs the network without its labels')
    return lambda z, r, t: -network(z, process.told(t, r))[..., :latents.shape[-1]]


def _is_power_of_two(count: int) -> bool:
    return isinstance(count, int) and count > 0 and count & (count - 1) == 0


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise UserError(f'the share of flow matching in a batch lies between 0 and 1, not {share}')
