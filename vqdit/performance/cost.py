"""The cost of a training step before the first one is taken, and the least time that a machine needs for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from vqdit.performance.chips import GIB, Chip
from vqdit.performance.flops import Flops, count_flops
from vqdit.performance.program import Program, Traffic


@dataclass(frozen=True)
class StepCost:
    """What one call of a compiled step takes.

    Attributes:
        flops: on all devices together.
        devices: how many share the work.
        resident: bytes on a device of what stays between steps: the state and a batch.
        temporary: bytes on a device that are used within a step, the program itself included.
        traffic: of one device.
        chip: of the devices, None when unknown.
    """

    flops: Flops
    devices: int
    resident: int
    temporary: int
    traffic: Traffic
    chip: Chip | None

    @property
    def memory(self) -> int:
        """Bytes that one device needs."""
        return self.resident + self.temporary

    @property
    def fits(self) -> bool | None:
        """Whether one device holds it; None when its memory is not known."""
        return None if self.chip is None else self.memory <= self.chip.memory

    def seconds(self) -> Mapping[str, float]:
        """The least time of each of the three limits: {'compute': ..., 'memory': ..., 'links': ...}.

        A perfect program hides the two smaller ones behind the largest, which is the roofline (Williams et al. 2009).
        Raises ValueError for an unknown chip.
        """
        if self.chip is None:
            raise ValueError('the limits of an unknown chip are not known')
        return {'compute': self.flops.executed / self.devices / self.chip.peak,
                'memory': self.traffic.memory / self.chip.bandwidth,
                'links': self.traffic.links / self.chip.links}

    def utilization(self, seconds: float) -> float | None:
        """MFU of a step that takes `seconds`: see docs/performance.md; None for an unknown chip."""
        return None if self.chip is None else self.flops.model / (seconds * self.devices * self.chip.peak)


def step_cost(traced: jax.stages.Traced, compiled: jax.stages.Compiled, devices: int, chip: Chip | None) -> StepCost:
    """The cost of a step that was traced and then compiled for `devices` devices."""
    memory: Any = compiled.memory_analysis()
    resident = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    temporary = memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return StepCost(count_flops(traced.jaxpr), devices, resident, temporary,
                    Program(compiled.as_text() or '').traffic(), chip)


def describe(cost: StepCost) -> list[str]:
    """The cost in lines for people."""
    flops, gigabytes = cost.flops, f'{cost.memory / GIB:.3g} GiB a device'
    again = f', {flops.executed / flops.model - 1:.0%} more computed again' if flops.executed > flops.model else ''
    lines = [f'{engineering(flops.model)}FLOP a step on {cost.devices} device{"s" * (cost.devices > 1)}{again}']
    parts = f'{cost.resident / GIB:.3g} of state and batch, {cost.temporary / GIB:.3g} of temporary memory'
    if cost.chip is None:
        lines.append(f'{gigabytes}: {parts}')
    else:
        verdict = 'fits' if cost.fits else 'does not fit'
        lines.append(f'{gigabytes}: {parts}; {verdict} the {cost.chip.memory / GIB:.3g} GiB of a {cost.chip.name}')
    links = ', '.join(f'{kind} {engineering(size)}B' for kind, size in sorted(cost.traffic.collectives.items()))
    lines.append(f'a device moves {engineering(cost.traffic.memory)}B of memory and {engineering(cost.traffic.links)}B '
                 'between devices' + (f' ({links})' if links else ''))
    if cost.chip is not None:
        seconds = cost.seconds()
        limit = max(seconds, key=lambda name: seconds[name])
        each = ', '.join(f'{name} {engineering(value)}s' for name, value in seconds.items())
        lines.append(f'at least {engineering(seconds[limit])}s a step, limited by {limit} ({each}); '
                     f'MFU at most {cost.utilization(seconds[limit]):.1%}')
    return lines


def engineering(value: float) -> str:
    """Three digits and the prefix of the unit that follows: 1234567 is "1.23 M"."""
    for power, prefix in ((1e15, 'P'), (1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k'), (1.0, ''), (1e-3, 'm')):
        if abs(value) >= power:
            return f'{value / power:.3g} {prefix}'
    return f'{value * 1e6:.3g} µ' if value else '0 '
