"""Samplers for the absorbing process: the whole loop is one `lax.scan`, to be jitted once for all tasks.

A denoiser is a function `(codes [B, N], clock [B, N]) -> {modality: logits [B, n, K]}`. Roles, given codes and keys
are arrays, so that every task runs the same compiled program. The key of a sample is that of its global index: the
same samples on one device or many, in any batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical import Absorbing, draw_codes
from vqdit.diffusion.clock import GENERATED, GIVEN, clock_of
from vqdit.diffusion.guidance import guide
from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout

Denoiser = Callable[[jax.Array, jax.Array], Mapping[str, jax.Array]]


def sample_keys(key: jax.Array, indices: jax.Array) -> jax.Array:
    """One key per global sample index, keys [B]."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def guided(denoiser: Denoiser, layout: TokenLayout, roles: jax.Array, scale: float) -> Denoiser:
    """The denoiser under guidance towards its given tokens; both halves run as one batch of 2B."""
    if scale == 1.0:
        return denoiser
    mask_ids = jnp.asarray(layout.mask_ids)[None]

    def guided_denoiser(codes: jax.Array, clock: jax.Array) -> dict[str, jax.Array]:
        given = roles == GIVEN
        free_codes, free_clock = jnp.where(given, mask_ids, codes), jnp.where(given, 1.0, clock)
        both = denoiser(jnp.concatenate([codes, free_codes]), jnp.concatenate([clock, free_clock]))
        halves = {name: jnp.split(logits, 2) for name, logits in both.items()}
        return {name: guide(with_given, without, scale) for name, (with_given, without) in halves.items()}

    return guided_denoiser


def _propose(keys: jax.Array, logits: Mapping[str, jax.Array], layout: TokenLayout,
             temperature: float) -> tuple[jax.Array, jax.Array]:
    """Draws codes int32 [B, N] for every token, and their log-probabilities fp32 [B, N]."""
    codes, scores = {}, {}
    for number, (name, values) in enumerate(logits.items()):
        folded = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys)
        drawn = jax.vmap(lambda key, row: draw_codes(key, row, temperature))(folded, values)
        log_probabilities = jax.nn.log_softmax(values.astype(jnp.float32))
        codes[name] = drawn
        scores[name] = jnp.take_along_axis(log_probabilities, drawn[..., None], axis=-1)[..., 0]
    return layout.join(codes), layout.join(scores)


def _split_each(keys: jax.Array, count: int) -> list[jax.Array]:
    """Splits every key of `keys [B]` into `count`; a list of `count` arrays of keys [B]."""
    split = jax.vmap(lambda key: jax.random.split(key, count))(keys)
    return [split[:, i] for i in range(count)]


@dataclass(frozen=True)
class Ancestral:
    """Reverses the process step by step (eq. 2 of `categorical`): its law is the model's up to O(1/steps).

    The error comes from tokens that are revealed in the same step, which are drawn independently.
    """

    steps: int
    temperature: float = 1.0
    process: Absorbing = field(default_factory=Absorbing)

    def __post_init__(self):
        _check_steps(self.steps)

    def __call__(self, keys: jax.Array, denoiser: Denoiser, codes: jax.Array, roles: jax.Array,
                 layout: TokenLayout) -> jax.Array:
        """Samples int32 [B, N]: given tokens as in `codes`, absent ones masked, the others generated."""
        mask_ids = jnp.asarray(layout.mask_ids)
        start = jnp.where(roles == GIVEN, codes, mask_ids[None])

        def body(state, index):
            noisy, keys = state
            t, s = 1.0 - index / self.steps, 1.0 - (index + 1) / self.steps
            keys, propose, reveal = _split_each(keys, 3)
            proposal, _ = _propose(propose, denoiser(noisy, clock_of(roles, t)), layout, self.temperature)
            step = jax.vmap(lambda k, z, x: self.process.step(k, z[None], x[None], t, s, mask_ids)[0])
            return (jnp.where(roles == GENERATED, step(reveal, noisy, proposal), noisy), keys), None

        (final, _), _ = jax.lax.scan(body, (start, keys), jnp.arange(self.steps, dtype=jnp.float32))
        return final


@dataclass(frozen=True)
class Ordered:
    """Reveals a fixed number of tokens in every step, in an order of its own.

    `order` is "random": exact when `steps` is at least the number of generated tokens (one token at a time is the
    chain rule in a random order), else O(1/steps); or "confidence": the tokens drawn with the highest probability
    first, as in MaskGIT (arXiv:2202.04200): sharper, but biased towards likely samples even with a perfect model.
    `choice_temperature` adds Gumbel noise, fading out over the steps, to the confidences.
    """

    steps: int
    temperature: float = 1.0
    order: str = 'random'
    choice_temperature: float = 0.0
    process: Absorbing = field(default_factory=Absorbing)

    def __post_init__(self):
        _check_steps(self.steps)
        if self.order not in ('random', 'confidence'):
            raise UserError(f'order "{self.order}" is unknown; choose "random" or "confidence"')

    def __call__(self, keys: jax.Array, denoiser: Denoiser, codes: jax.Array, roles: jax.Array,
                 layout: TokenLayout) -> jax.Array:
        """Samples int32 [B, N]: given tokens as in `codes`, absent ones masked, the others generated."""
        mask_ids = jnp.asarray(layout.mask_ids)
        start = jnp.where(roles == GIVEN, codes, mask_ids[None])
        hidden = self._hidden(jnp.sum(roles == GENERATED, axis=1))
        first = jax.vmap(lambda key: jax.random.fold_in(key, self.steps))(keys)
        priority = jax.vmap(lambda key: jax.random.uniform(key, roles.shape[1:]))(first)

        def reveal(noisy, index, before, after):
            step_keys = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
            propose, choose = _split_each(step_keys, 2)
            clock = clock_of(roles, (before / jnp.maximum(hidden[0], 1))[:, None])
            proposal, confidence = _propose(propose, denoiser(noisy, clock), layout, self.temperature)
            score = priority if self.order == 'random' else self._noisy(choose, confidence, 1.0 - index / self.steps)
            masked = (noisy == mask_ids[None]) & (roles == GENERATED)
            revealed = _highest(jnp.where(masked, score, -jnp.inf), before - after)
            return jnp.where(revealed & masked, proposal, noisy)

        def body(noisy, step):
            _, before, after = step
            # Short texts have fewer tokens than there are steps: a step in which no sample reveals any costs nothing.
            return jax.lax.cond(jnp.any(before > after), reveal, lambda noisy, *_: noisy, noisy, *step), None

        final, _ = jax.lax.scan(body, start, (jnp.arange(self.steps), hidden[:-1], hidden[1:]))
        return final

    def _hidden(self, total: jax.Array) -> jax.Array:
        """How many of the `total [B]` generated tokens are masked before every step and at the end, [steps + 1, B]."""
        times = 1.0 - jnp.arange(self.steps + 1) / self.steps
        return jnp.round((1.0 - self.process.schedule.alpha(times))[:, None] * total[None]).astype(jnp.int32)

    def _noisy(self, keys: jax.Array, confidence: jax.Array, t: jax.Array) -> jax.Array:
        gumbel = jax.vmap(lambda key: jax.random.gumbel(key, confidence.shape[1:], mode='high'))(keys)
        return confidence + self.choice_temperature * t * gumbel


def _highest(score: jax.Array, count: jax.Array) -> jax.Array:
    """bool [B, N]: the `count [B]` highest entries of each row of `score [B, N]`; the first one wins a tie."""
    rank = jnp.argsort(jnp.argsort(-score, axis=1, stable=True), axis=1, stable=True)
    return rank < count[:, None]


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise UserError(f'a sampler needs at least 1 step, not {steps}')


SAMPLERS = {'ancestral': Ancestral, 'ordered': Ordered}
