"""The settings of `config.diffusion.sampler`: those that every sampler has, and its own."""

from typing import Any

from ml_collections import ConfigDict

PATH = 'diffusion.sampler'

GENERAL: dict[str, Any] = {
    'batch_size': 64, 'guidance': 1.0, 'guidance_interval': (0.0, 1.0), 'guidance_schedule': 'constant',
    'guidance_rescale': 0.0, 'guidance_average': None, 'average': None}
"""Of every sampler, with the values that they have where nothing is said."""

TRUNCATION: dict[str, Any] = {'top_k': None, 'top_p': None}
"""Of every sampler of codes."""


def general(config: ConfigDict) -> dict[str, Any]:
    """The values of the general settings, and of the truncation."""
    section = config.diffusion.sampler
    return {name: section.get(name, default) for name, default in (GENERAL | TRUNCATION).items()}


def own(config: ConfigDict) -> dict[str, Any]:
    """The name of the sampler and the settings that are its own."""
    section = config.diffusion.sampler.to_dict()
    return {name: value for name, value in section.items() if name not in GENERAL | TRUNCATION}
