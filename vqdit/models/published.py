"""The published networks by their names: the sizes of DiT (Peebles & Xie 2023, arXiv:2212.09748) and its relatives.

SiT (Ma et al. 2024, arXiv:2401.08740) is the same network under another process: DiT is given timesteps 0 to 999, SiT
the time in [0, 1] with the data at 1, and only the first half of SiT's output channels is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vqdit.models.dit import DiT
from vqdit.models.parts import PARTS
from vqdit.registry import choose


@dataclass(frozen=True)
class Size:
    """One row of table 1 of the paper."""

    width: int
    depth: int
    heads: int


SIZES: Mapping[str, Size] = {
    'S': Size(384, 12, 6),
    'B': Size(768, 12, 12),
    'L': Size(1024, 24, 16),
    'XL': Size(1152, 28, 16),
}

PUBLISHED: Mapping[str, tuple[Size, int]] = {
    f'{family}-{size}/{patch}': (SIZES[size], patch)
    for family in ('DiT', 'SiT') for size in SIZES for patch in (2, 4, 8)
}
"""Size and patch of every published model by its name, "DiT-S/8" to "SiT-XL/2"."""

LIGHTNING: Mapping[str, tuple[Size, int]] = {
    f'LightningDiT-{size}/{patch}': (SIZES[size], patch) for size in ('B', 'L', 'XL') for patch in (1, 2)
}
"""Those of LightningDiT (Yao et al. 2025, arXiv:2501.01423) that share a size with DiT."""


def published_dit(name: str, pixels: int = 256, **options: Any) -> DiT:
    """The network `name` of `PUBLISHED` for square images of `pixels`, seen through an autoencoder of stride 8.

    Raises UserError when the name is unknown.
    """
    return DiT(**({'size': (pixels // 8, pixels // 8)} | _shape(PUBLISHED, name) | options))


def lightning_dit(name: str, pixels: int = 256, **options: Any) -> DiT:
    """The network `name` of `LIGHTNING`, seen through an autoencoder of stride 16 and 32 channels.

    Like SiT's, its time is in [0, 1] with the data at 1. Raises UserError when the name is unknown.
    """
    latents: dict[str, Any] = {'size': (pixels // 16, pixels // 16), 'channels': 32, 'out_channels': 32}
    return DiT(**(latents | {'parts': PARTS['lightning']()} | _shape(LIGHTNING, name) | options))


def _shape(networks: Mapping[str, tuple[Size, int]], name: str) -> dict[str, Any]:
    size, patch = choose(networks, name, 'model')
    return {'width': size.width, 'depth': size.depth, 'heads': size.heads, 'patch': patch}
