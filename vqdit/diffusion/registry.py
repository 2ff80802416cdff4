"""From a config to processes, samplers and guidance: mappings of names and numbers, such as

    {'name': 'mask_and_replace', 'schedule': {'name': 'polynomial', 'power': 2.0}, 'replaced': 0.2}
    {'name': 'remasking', 'steps': 32, 'amount': {'name': 'capped', 'most': 0.1}}
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from vqdit.diffusion.categorical import Absorbing, ByModality, CodeDistance, MaskAndReplace, Process, Uniform, replace
from vqdit.diffusion.guidance import Guidance, Interval, Rescaled, Scale, Weight, cosine, fading
from vqdit.diffusion.samplers import (
    Ancestral,
    EntropyBounded,
    FirstHitting,
    ForwardBackward,
    LeaveOneOutGibbs,
    Ordered,
    Remasking,
    Stepwise,
    TauLeaping,
    Truncated,
    blocks,
    capped,
    during,
    evenly,
    levels,
    looped,
    on_the_unsure,
    rescaled,
    top_k,
    top_p,
)
from vqdit.diffusion.samplers.ordered import all_at_once
from vqdit.diffusion.samplers.remasking import straight
from vqdit.diffusion.schedules import SCHEDULES, Linear, Partial, Schedule
from vqdit.errors import UserError
from vqdit.registry import choose, construct, settings_of
from vqdit.tokenizers.spec import TokenLayout

Codebooks = Mapping[str, np.ndarray]
"""The vectors [K, C] of the modalities that have any."""


def _uniform(schedule: Schedule | None = None) -> Process:
    return replace(Uniform(schedule or Linear()))


def _mask_and_replace(schedule: Schedule | None = None, replaced: float = 0.1) -> Process:
    """`replaced` is the share of the tokens that would not be masked yet at noise level 1, but replaced."""
    return MaskAndReplace(schedule or Linear(), Uniform(Partial(Linear(), 1.0 - replaced)))


def _code_distance(layout: TokenLayout, codebooks: Codebooks, schedule: Schedule | None = None,
                   width: float = 1.0) -> Process:
    """Where a modality has no codebook, as text, all codes are equally near."""
    def kernel(name: str) -> CodeDistance | Uniform:
        if name not in codebooks:
            return Uniform(schedule or Linear())
        return CodeDistance.of(codebooks[name], schedule, width)
    return ByModality({name: replace(kernel(name)) for name in layout.modalities}, layout)


PROCESSES: dict[str, Callable[..., Process]] = {
    'absorbing': Absorbing, 'uniform': _uniform, 'mask_and_replace': _mask_and_replace, 'code_distance': _code_distance}

SAMPLERS: dict[str, Callable[..., Stepwise]] = {
    'ancestral': Ancestral, 'ordered': Ordered, 'first_hitting': FirstHitting, 'entropy_bounded': EntropyBounded,
    'remasking': Remasking, 'tau_leaping': TauLeaping}

FOR_ANY_PROCESS = ('ancestral', 'tau_leaping')

PARTS: dict[str, Mapping[str, Callable[..., Any]]] = {
    'schedule': SCHEDULES,
    'stages': {'all_at_once': lambda: all_at_once, 'blocks': blocks, 'levels': lambda: levels},
    'amount': {'capped': capped, 'rescaled': rescaled, 'during': during},
    'focus': {'evenly': lambda: evenly, 'on_the_unsure': lambda: on_the_unsure},
    'times': {'straight': lambda: straight, 'looped': looped},
    'corrector': {'forward_backward': ForwardBackward, 'gibbs': LeaveOneOutGibbs},
}
"""Options that are parts with a registry of their own: a name, or a mapping of `name` and options."""

WEIGHT_SCHEDULES: dict[str, Callable[[float], Weight]] = {
    'constant': lambda weight: weight, 'linear': fading, 'cosine': cosine}
"""How the weight of guidance grows from 1 at noise level 1 to its value at 0."""


def build_process(settings: Mapping[str, Any], path: str, layout: TokenLayout, codebooks: Codebooks) -> Process:
    """The process of a config; `absorbing` unless named. Raises UserError for unknown or unsound settings."""
    return construct(PROCESSES, settings, path, PARTS, 'absorbing', layout=layout, codebooks=codebooks)


def build_sampler(settings: Mapping[str, Any], path: str, process: Process) -> Stepwise:
    """The sampler of a config. Raises UserError for unknown or unsound settings, or one that needs another process."""
    name = settings.get('name', '')
    if name in SAMPLERS and name not in FOR_ANY_PROCESS and not isinstance(process, Absorbing):
        raise UserError(f'{path}.name "{name}" reveals masked tokens, as only the process "absorbing" leaves them; '
                        f'choose one of {", ".join(FOR_ANY_PROCESS)}')
    return construct(SAMPLERS, settings, path, PARTS, process=process)


def sampler_settings(name: str, path: str) -> tuple[str, ...]:
    """What a sampler can be told. Raises UserError for an unknown one."""
    return tuple(settings_of(choose(SAMPLERS, name, path), {'process': None}))


def build_truncation(sampler: Stepwise, path: str, count: int | None = None, mass: float | None = None) -> Stepwise:
    """The sampler with top-k of `count` codes, then top-p of `mass`, each where it is not None.

    Raises UserError for a count that is no whole number above 0 and a mass outside of (0, 1].
    """
    if count is not None and (not isinstance(count, int) or count < 1):
        raise UserError(f'{path}.top_k is {count}; it is a number of codes, 1 or more, or None for all')
    if mass is not None and not 0 < mass <= 1:
        raise UserError(f'{path}.top_p is {mass}; it is a probability above 0 and at most 1, or None for all codes')
    if mass is not None:
        sampler = Truncated(sampler, partial(top_p, mass=mass))
    return sampler if count is None else Truncated(sampler, partial(top_k, count=count))


def build_guidance(weight: float, path: str, interval: tuple[float, float] = (0.0, 1.0), schedule: str = 'constant',
                   rescale: float = 0.0) -> float | Guidance:
    """Guidance of a `weight` that follows `schedule`, rescaled, at the noise levels of `interval` alone; 1.0 is none.

    Raises UserError for a negative weight and unsound settings.
    """
    if weight < 0:
        raise UserError(f'{path} is {weight}, which pulls away from what is given; it is 1 for none, or larger')
    levels = interval if isinstance(interval, tuple | list) else ()
    if len(levels) != 2 or not all(isinstance(level, int | float) for level in levels):
        raise UserError(f'{path}_interval is {interval}; write two noise levels, such as (0.1, 0.9)')
    if weight == 1:
        return 1.0
    guidance: Guidance = Scale(choose(WEIGHT_SCHEDULES, schedule, f'{path}_schedule')(weight))
    if rescale:
        guidance = Rescaled(guidance, rescale)
    return guidance if tuple(interval) == (0.0, 1.0) else Interval(guidance, *interval)
