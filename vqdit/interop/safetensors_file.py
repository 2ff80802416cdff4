"""Safetensors files, through the package of that name (extra "hub")."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vqdit.errors import CheckpointError, UserError
from vqdit.files import write_bytes


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a file by name. Raises CheckpointError when it is damaged, of another format or in fp8."""
    package = _package()
    try:
        with package.safe_open(path, framework='numpy') as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except package.SafetensorError as error:
        raise CheckpointError(f'{path} is truncated, damaged, or no safetensors file ({error}); '
                              'fetch it again') from error
    except (AttributeError, TypeError) as error:
        raise CheckpointError(f'{path} holds numbers that NumPy does not know ({error}); save it in fp32 or fp16, '
                              'or fetch that variant') from error


def write_safetensors(path: str | Path, tensors: Mapping[str, np.ndarray],
                      metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors by name, whole or not at all. Raises DiskError when it cannot."""
    _package()
    from safetensors.numpy import save

    packed = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    write_bytes(path, save(packed, dict(metadata or {})))


def _package():
    try:
        import safetensors
    except ImportError as error:
        raise UserError('safetensors files need the package safetensors; run: pip install "vqdit[hub]"') from error
    return safetensors
