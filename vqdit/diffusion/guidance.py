"""Guidance: a prediction under conditions, pushed away from one without them (arXiv:2207.12598).

One convention for everything, on all channels: guided = u + w (c - u) with c the conditional and u the unconditional
prediction; w = 0 is u, w = 1 is no guidance. For codes the predictions are log-probabilities [..., K] (they stay
unnormalised), for vectors clean vectors or velocities [B, N, C]. The unconditional model is the same model with the
conditions' clock at 1 and their tokens masked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from vqdit.diffusion.clock import GIVEN
from vqdit.diffusion.denoiser import Denoiser
from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout


class Guidance(Protocol):
    """How c and u, equal shapes, are combined at noise levels `t`, which broadcast with them."""

    def __call__(self, c: jax.Array, u: jax.Array, t: jax.Array) -> jax.Array: ...


Weight = float | Callable[[jax.Array], jax.Array]
"""w, constant or as a function of t."""


def _weight(weight: Weight, t: jax.Array) -> jax.Array | float:
    return weight(t) if callable(weight) else weight


def fading(weight: float, power: float = 1.0) -> Weight:
    """From no guidance at t = 1 to `weight` at t = 0: linear, or by another power of 1 - t."""
    return lambda t: 1.0 + (weight - 1.0) * (1.0 - t) ** power


def cosine(weight: float) -> Weight:
    """From no guidance at t = 1 to `weight` at t = 0 along half a cosine."""
    return lambda t: 1.0 + (weight - 1.0) * 0.5 * (1.0 + jnp.cos(jnp.pi * t))


@dataclass(frozen=True)
class Scale:
    """u + w (c - u)."""

    weight: Weight

    def __call__(self, c: jax.Array, u: jax.Array, t: jax.Array) -> jax.Array:
        return u + _weight(self.weight, t) * (c - u)


@dataclass(frozen=True)
class Interval:
    """Another guidance between two noise levels, none outside (arXiv:2404.07724).

    Raises UserError unless 0 <= low <= high <= 1.
    """

    inner: Guidance
    low: float
    high: float

    def __post_init__(self):
        if not 0 <= self.low <= self.high <= 1:
            raise UserError(f'a guidance interval lies in [0, 1], low end first, not {self.low} to {self.high}')

    def __call__(self, c: jax.Array, u: jax.Array, t: jax.Array) -> jax.Array:
        return jnp.where((t >= self.low) & (t <= self.high), self.inner(c, u, t), c)


@dataclass(frozen=True)
class Rescaled:
    """Another guidance, a `share` of it brought back to the standard deviation of c (arXiv:2305.08891, 3.4).

    Raises UserError for a share outside of [0, 1].
    """

    inner: Guidance
    share: float = 0.7

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise UserError(f'the rescaled share of guidance lies in [0, 1], not {self.share}')

    def __call__(self, c: jax.Array, u: jax.Array, t: jax.Array) -> jax.Array:
        guided, axes = self.inner(c, u, t), tuple(range(1, c.ndim))
        deviation = lambda x: jnp.std(x, axis=axes, keepdims=True)
        return guided * (1.0 + self.share * (deviation(c) / jnp.maximum(deviation(guided), 1e-12) - 1.0))


@dataclass(frozen=True)
class Projected:
    """c + (w - 1) (across + eta along), the parts of c - u across and along c (APG, arXiv:2410.02416).

    The part along c is what oversaturates; `radius` bounds the length of c - u. `eta` 1 without a radius is `Scale`.
    """

    weight: Weight
    eta: float = 0.0
    radius: float = float('inf')

    def __call__(self, c: jax.Array, u: jax.Array, t: jax.Array) -> jax.Array:
        change = c - u
        change = change * jnp.minimum(1.0, self.radius / jnp.maximum(jnp.sqrt(_dot(change, change)), 1e-12))
        along = _dot(change, c) / jnp.maximum(_dot(c, c), 1e-12) * c
        return c + (_weight(self.weight, t) - 1.0) * (change - along + self.eta * along)


@dataclass(frozen=True)
class ZeroStar:
    """u is scaled to what of c it explains, and above the noise level `still` nothing moves: 0 is returned
    (CFG-Zero*, arXiv:2503.18886; for velocities)."""

    weight: Weight
    still: float = 1.0

    def __call__(self, c: jax.Array, u: jax.Array, t: jax.Array) -> jax.Array:
        explained = _dot(c, u) / jnp.maximum(_dot(u, u), 1e-12) * u
        guided = explained + _weight(self.weight, t) * (c - explained)
        return jnp.where(t > self.still, 0.0, guided)


def between(weight: float, low: float, high: float) -> Guidance:
    return Interval(Scale(weight), low, high)


GUIDANCES: dict[str, Callable[..., Guidance]] = {'scale': Scale, 'interval': between}
"""Of velocities in training, by name, each with its own settings."""


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Inner products over all axes but the first, which are kept."""
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)), keepdims=True)


def log_probabilities(logits: jax.Array) -> jax.Array:
    """Log-probabilities fp32 [..., K], bounded from below so that their differences stay finite."""
    return jnp.maximum(jax.nn.log_softmax(logits.astype(jnp.float32)), -1e4)


Comparable = Callable[[jax.Array], jax.Array]
"""How the answers of a network for one modality are combined: as log-probabilities, or vectors as they are."""


def hide(tokens: jax.Array, hidden: jax.Array, layout: TokenLayout) -> jax.Array:
    """Tokens without those of `hidden bool [B, N]`: masks for codes int32 [B, N], zeros for vectors [B, N, C]."""
    return _put(tokens, hidden, 0.0 if tokens.ndim > hidden.ndim else jnp.asarray(layout.mask_ids)[None])


def _put(tokens: jax.Array, where: jax.Array, others: jax.Array | float) -> jax.Array:
    """`others` in place of the tokens, [B, N] or [B, N, C], of `where bool [B, N]`."""
    return jnp.where(where[..., None] if tokens.ndim > where.ndim else where, others, tokens)


def _combine(guidance: Guidance, with_given: Mapping[str, jax.Array], without: Mapping[str, jax.Array],
             clock: jax.Array, layout: TokenLayout, comparable: Comparable = log_probabilities) -> dict[str, jax.Array]:
    times = layout.split(clock)
    return {name: guidance(comparable(answers), comparable(without[name]), times[name][..., None])
            for name, answers in with_given.items()}


def guided(denoiser: Denoiser, layout: TokenLayout, roles: jax.Array, scale: float | Guidance,
           negative: jax.Array | None = None, comparable: Comparable = log_probabilities) -> Denoiser:
    """The denoiser under guidance towards its given tokens; both halves run as one batch of 2B.

    `negative`, of the shape of the tokens, stands in for the given ones in the unconditional half: guidance away from
    it. `comparable` belongs to the answers: the default to logits.
    """
    if scale == 1.0:
        return denoiser
    guidance = Scale(scale) if isinstance(scale, int | float) else scale

    def guided_denoiser(codes: jax.Array, clock: jax.Array) -> dict[str, jax.Array]:
        given = roles == GIVEN
        if negative is None:
            free_codes, free_clock = hide(codes, given, layout), jnp.where(given, 1.0, clock)
        else:
            free_codes, free_clock = _put(codes, given, negative), clock
        both = denoiser(jnp.concatenate([codes, free_codes]), jnp.concatenate([clock, free_clock]))
        halves = {name: jnp.split(logits, 2) for name, logits in both.items()}
        return _combine(guidance, {name: half[0] for name, half in halves.items()},
                        {name: half[1] for name, half in halves.items()}, clock, layout, comparable)

    return guided_denoiser


def guided_by_each(denoiser: Denoiser, layout: TokenLayout, roles: jax.Array,
                   weights: Mapping[str, float], comparable: Comparable = log_probabilities) -> Denoiser:
    """A weight for every given modality m: u + sum of w_m (c_m - u), c_m with m alone given; one batch of (1 + M) B.

    Modalities without a weight count as absent. Raises UserError for one that the layout lacks.
    """
    chosen = [jnp.asarray(layout.select(names))[None] for names in ((), *((name,) for name in weights))]

    def guided_denoiser(codes: jax.Array, clock: jax.Array) -> dict[str, jax.Array]:
        hidden = [(roles == GIVEN) & ~keep for keep in chosen]
        seen = jnp.concatenate([hide(codes, h, layout) for h in hidden])
        times = jnp.concatenate([jnp.where(h, 1.0, clock) for h in hidden])
        combined = {}
        for name, logits in denoiser(seen, times).items():
            u, *parts = jnp.split(comparable(logits), len(chosen))
            combined[name] = u + sum(w * (c - u) for w, c in zip(weights.values(), parts))
        return combined

    return guided_denoiser


def autoguided(denoiser: Denoiser, weaker: Denoiser, layout: TokenLayout, guidance: Guidance,
               comparable: Comparable = log_probabilities) -> Denoiser:
    """The denoiser pushed away from a weaker one under the same conditions, such as the same network with an older
    average of its parameters (arXiv:2406.02507)."""
    return lambda codes, clock: _combine(guidance, denoiser(codes, clock), weaker(codes, clock), clock, layout,
                                         comparable)
