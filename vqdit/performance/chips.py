"""What the accelerators can do at best, from the data sheets of their makers; all figures are of one JAX device."""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """The limits of one device.

    Attributes:
        name: as its maker writes it.
        kind: how `jax.Device.device_kind` begins.
        peak: FLOP/s of dense bf16 matrix products with fp32 sums.
        memory: bytes of main memory.
        bandwidth: bytes a second of main memory.
        links: bytes a second that it sends to its neighbours, all links together.
    """

    name: str
    kind: str
    peak: float
    memory: int
    bandwidth: float
    links: float


CHIPS = (
    Chip('TPU v5e', 'TPU v5 lite', 197e12, 16 * GIB, 819e9, 200e9),
    Chip('TPU v5p', 'TPU v5', 459e12, 95 * GIB, 2765e9, 600e9),
    Chip('TPU v6e', 'TPU v6', 918e12, 32 * GIB, 1640e9, 400e9),
    Chip('TPU v4', 'TPU v4', 275e12, 32 * GIB, 1228e9, 300e9),
    # Two devices a chip.
    Chip('TPU7x', 'TPU7', 1154e12, 96 * GIB, 3690e9, 600e9),
    Chip('A100 80GB', 'NVIDIA A100-SXM4-80GB', 312e12, 80 * GIB, 2039e9, 300e9),
    Chip('A100 40GB', 'NVIDIA A100', 312e12, 40 * GIB, 1555e9, 300e9),
    Chip('H200', 'NVIDIA H200', 989e12, 141 * 10**9, 4800e9, 450e9),
    Chip('H100 SXM', 'NVIDIA H100 80GB HBM3', 989e12, 80 * GIB, 3350e9, 450e9),
    Chip('B200', 'NVIDIA B200', 2250e12, 180 * 10**9, 7700e9, 900e9),
)


def find_chip(device_kind: str) -> Chip | None:
    """The chip of a `jax.Device.device_kind`; None for those that are not listed, CPUs among them."""
    return next((chip for chip in CHIPS if device_kind.startswith(chip.kind)), None)
