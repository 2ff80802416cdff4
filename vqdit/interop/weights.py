"""Weight files of any known format, told by their first bytes and never by their names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vqdit.errors import CheckpointError, UserError
from vqdit.interop.safetensors_file import read_safetensors
from vqdit.interop.torch_file import read_torch

StateDict = Mapping[str, np.ndarray]

SECTIONS = ('ema', 'state_dict', 'model')
"""Where training checkpoints keep their weights; the average comes first, because it is what samples best."""

OLD_TORCH = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'


DIFFUSERS_FILES = ('diffusion_pytorch_model.safetensors', 'diffusion_pytorch_model.bin')
"""The names of the weights in a folder of diffusers: what it writes now, and what it wrote before 2023."""


def read_folder(folder: Path) -> StateDict:
    """`read_weights` of the file in a folder that diffusers saved."""
    found = [folder / name for name in DIFFUSERS_FILES if (folder / name).is_file()]
    return read_weights((found or [folder / DIFFUSERS_FILES[0]])[0])


def read_weights(path: str | Path) -> StateDict:
    """The tensors of a PyTorch or safetensors file by name.

    Raises UserError when there is no such file, CheckpointError when it is damaged or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'there is no weight file {path}; name one that ends in .pt, .pth, .bin, .ckpt or .safetensors')
    with path.open('rb') as file:
        start = file.read(len(OLD_TORCH))
    if start == OLD_TORCH:
        raise CheckpointError(f'{path} was written by a PyTorch before 1.6; load and save it again with a newer one')
    if start.startswith(b'PK\x03\x04'):
        return state_dict(read_torch(path), path)
    return read_safetensors(path)


def state_dict(content: Any, path: object = 'the checkpoint') -> StateDict:
    """The weights within what a training script saved. Raises CheckpointError when there are none."""
    for section in SECTIONS:
        if isinstance(content, dict) and isinstance(content.get(section), dict):
            return state_dict(content[section], path)
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f'{path} holds no weights; it should hold tensors by name, or these as '
                              f'one of {", ".join(SECTIONS)}')
    strange = [name for name, tensor in content.items() if not isinstance(tensor, np.ndarray)]
    if strange:
        raise CheckpointError(f'{path} holds what is no tensor under {", ".join(map(str, strange[:5]))}; '
                              'save the weights alone')
    return content
