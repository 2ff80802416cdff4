"""Power averages that a training keeps beside the usual one, and averages of other lengths made of them afterwards.

    config.diffusion.training.power_averages = (0.05, 0.1)
    config.diffusion.sampler.average = 0.07            # samples with an average that nobody tracked
    config.diffusion.sampler.guidance_average = 0.2    # guidance pushes away from that of another length

Lengths are the deviations of EDM2 (arXiv:2312.02696), shares of the training. A reconstruction is the nearer, the more
checkpoints there are; one of a deviation that was tracked is exact.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from vqdit.errors import UserError
from vqdit.generation.generator import Pair
from vqdit.training.checkpoint_reader import CheckpointReader, Restored
from vqdit.training.ema import Average, Decay, combined, exponent_of, power, reconstruction
from vqdit.training.sampler_settings import PATH, general
from vqdit.training.state import TrainState, Tree

SETTINGS = ('average', 'guidance_average')


class Kept(NamedTuple):
    """The power averages after so many `steps`, in the order of the config."""

    steps: int
    averages: tuple[Tree, ...]


def deviations(config: ConfigDict) -> tuple[float, ...]:
    """Of the averages that the training keeps."""
    return tuple(config.diffusion.training.get('power_averages', ()))


def decays(config: ConfigDict) -> tuple[Decay, ...]:
    """Of the averages that the training keeps. Raises UserError for a deviation that no average has."""
    return tuple(power(exponent_of(deviation)) for deviation in deviations(config))


def wanted(config: ConfigDict) -> list[float]:
    """The deviations of the averages that the sampler asks for."""
    return [general(config)[name] for name in SETTINGS if general(config)[name] is not None]


def check_averages(config: ConfigDict) -> None:
    """Raises UserError for deviations that no average has, averages that cannot be made and guidance of no weight."""
    decays(config)
    for deviation in wanted(config):
        exponent_of(deviation)
        if not deviations(config):
            raise UserError(f'{PATH} asks for the average of deviation {deviation}, but training keeps none; set '
                            'diffusion.training.power_averages to (0.05, 0.1) and train anew')
    if general(config)['guidance_average'] is not None and general(config)['guidance'] == 1:
        raise UserError(f'{PATH}.guidance_average has no effect at {PATH}.guidance 1; set the guidance to 1.5, say')


def sampling_parameters(config: ConfigDict, usual: Tree, kept: Sequence[Kept]) -> Tree:
    """The parameters to sample with: the `usual` average, or what the sampler's settings ask for, made of the `kept`.

    With `guidance_average` they are a `Pair`. Raises UserError as `check_averages` does.
    """
    check_averages(config)
    average, weaker = (general(config)[name] for name in SETTINGS)
    params = usual if average is None else _reconstructed(average, deviations(config), kept)
    return params if weaker is None else Pair(params, _reconstructed(weaker, deviations(config), kept))


def restored_parameters(config: ConfigDict, reader: CheckpointReader, abstract: TrainState,
                        newest: TrainState) -> Tree:
    """`sampling_parameters` of the `newest` state, with the averages of all checkpoints where they are asked for."""
    kept = [Kept(int(newest.step), newest.averages)]
    for step in reader.steps if wanted(config) else ():
        if step < kept[0].steps:
            kept.append(Kept(step, _host(reader.restore({'state': abstract}, step))))
    return sampling_parameters(config, newest.ema, kept)


def _host(found: Restored | None) -> tuple[Tree, ...]:
    # Away from the devices, which need not hold the averages of all checkpoints.
    return jax.tree.map(np.asarray, found.trees['state'].averages) if found else ()


def _reconstructed(deviation: float, tracked: Sequence[float], kept: Sequence[Kept]) -> Tree:
    """The average of a deviation at the last step of those kept."""
    stored = [Average(exponent_of(other), moment.steps) for moment in kept for other in tracked]
    last = max(moment.steps for moment in kept)
    weights = reconstruction(stored, Average(exponent_of(deviation), last))
    return combined([tree for moment in kept for tree in moment.averages], weights)
