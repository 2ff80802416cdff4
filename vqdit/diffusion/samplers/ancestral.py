"""Samplers that reverse the process step by step, on equal steps of the noise level, for any categorical process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical import Absorbing, Process, part_of
from vqdit.diffusion.clock import GENERATED, clock_of
from vqdit.diffusion.denoiser import Denoiser
from vqdit.diffusion.samplers.grids import check_steps
from vqdit.diffusion.samplers.shared import all_masked, propose, split_each
from vqdit.diffusion.samplers.stepwise import State, Stepwise
from vqdit.tokenizers.spec import TokenLayout


class Corrector(Protocol):
    """A move that leaves the law of the noisy codes at noise level t as it is, or nearly."""

    def __call__(self, keys: jax.Array, denoiser: Denoiser, noisy: jax.Array, roles: jax.Array, t: jax.Array,
                 layout: TokenLayout) -> jax.Array: ...


@dataclass(frozen=True)
class Ancestral(Stepwise):
    """Draws z_s given z_t with the denoiser in place of the data: its law is the model's up to O(1/steps).

    The error comes from tokens that change in the same step, which are drawn independently. With `Absorbing`, which
    tokens a step reveals does not depend on the denoiser: a step that reveals none in the whole batch does not run it.
    The `corrector`, if any, moves the codes `corrections` times after every step but the last.
    """

    steps: int
    temperature: float = 1.0
    process: Process = field(default_factory=Absorbing)
    corrector: Corrector | None = None
    corrections: int = 1

    def __post_init__(self):
        check_steps(self.steps)

    def length(self, layout: TokenLayout) -> int:
        return self.steps

    def start(self, keys: jax.Array, codes: jax.Array, roles: jax.Array, layout: TokenLayout) -> State:
        keys, first = split_each(keys, 2)
        noise = jax.vmap(lambda key: self.process.prior(key, jnp.asarray(layout.mask_ids), 1)[0])(first)
        return State(jnp.where(roles == GENERATED, noise, all_masked(codes, roles, layout)), keys)

    def step(self, index: jax.Array, state: State, denoiser: Denoiser, roles: jax.Array,
             layout: TokenLayout) -> State:
        t, s = 1.0 - index / self.steps, 1.0 - (index + 1) / self.steps
        keys, draw, move = split_each(state.keys, 3)
        proposal = lambda: propose(draw, denoiser(state.codes, clock_of(roles, t)), layout, self.temperature)
        moved = self._move(move, state.codes, proposal, roles == GENERATED, t, s, jnp.asarray(layout.mask_ids))
        return self._corrected(index, State(jnp.where(roles == GENERATED, moved, state.codes), keys), denoiser, roles,
                               layout)

    def _move(self, keys: jax.Array, noisy: jax.Array, proposal: Callable[[], jax.Array], generated: jax.Array,
              t: jax.Array, s: jax.Array, mask_ids: jax.Array) -> jax.Array:
        process = self.process
        if isinstance(process, Absorbing):
            revealed = jax.vmap(lambda k, z: process.revealed(k, z[None], t, s, mask_ids)[0])(keys, noisy)
            reveal = revealed & generated
            return jax.lax.cond(jnp.any(reveal), lambda: jnp.where(reveal, proposal(), noisy), lambda: noisy)
        step = jax.vmap(lambda k, z, x: process.step(k, z[None], x[None], t, s, mask_ids)[0])
        return step(keys, noisy, proposal())

    def _corrected(self, index: jax.Array, state: State, denoiser: Denoiser, roles: jax.Array,
                   layout: TokenLayout) -> State:
        corrector = self.corrector
        if corrector is None:
            return state
        level = 1.0 - (index + 1) / self.steps

        def correct(state: State, _) -> tuple[State, None]:
            keys, draw = split_each(state.keys, 2)
            return State(corrector(draw, denoiser, state.codes, roles, level, layout), keys), None

        moved = lambda state: jax.lax.scan(correct, state, length=self.corrections)[0]
        return jax.lax.cond(index < self.steps - 1, moved, lambda state: state, state)


@dataclass(frozen=True)
class TauLeaping(Ancestral):
    """Holds the rates of the reversed process still for a step, in which a token jumps once or not at all.

    With the summed rate r of a token it jumps in the step from t to s with probability 1 - exp(-(t - s) r), to a code
    in proportion to its rate (Campbell et al. 2022, arXiv:2205.14987, section 4.3, for codes without an order). The
    last step draws what is left, as `Ancestral`. O(1/steps), for any categorical process.
    """

    def step(self, index: jax.Array, state: State, denoiser: Denoiser, roles: jax.Array,
             layout: TokenLayout) -> State:
        def leap(state: State) -> State:
            return self._corrected(index, self._leap(index, state, denoiser, roles, layout), denoiser, roles, layout)

        finish = lambda state: Ancestral.step(self, index, state, denoiser, roles, layout)
        return jax.lax.cond(index < self.steps - 1, leap, finish, state)

    def _leap(self, index: jax.Array, state: State, denoiser: Denoiser, roles: jax.Array,
              layout: TokenLayout) -> State:
        keys, jump, draw = split_each(state.keys, 3)
        clock = clock_of(roles, 1.0 - index / self.steps)
        logits, seen, times = denoiser(state.codes, clock), layout.split(state.codes), layout.split(clock)
        sharper = 1.0 / max(self.temperature, 1e-6)
        rates = {name: part_of(self.process, name).rates(sharper * logits[name], seen[name], times[name], spec.mask_id)
                 for name, spec in layout.specs.items()}
        total = layout.join({name: jnp.sum(part, axis=-1) for name, part in rates.items()})
        target = propose(draw, {name: jnp.log(part) for name, part in rates.items()}, layout, 1.0)
        chance = jax.vmap(lambda key: jax.random.uniform(key, roles.shape[1:]))(jump)
        jumps = (chance < -jnp.expm1(-total / self.steps)) & (roles == GENERATED)
        return State(jnp.where(jumps, target, state.codes), keys)
