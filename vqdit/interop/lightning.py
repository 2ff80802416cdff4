"""What LightningDiT (Yao et al. 2025, arXiv:2501.01423) adds to the weight files of facebookresearch/DiT.

RMSNorm has scales, SwiGLU two matrices, queries and keys may have a norm, and rotary positions leave two tables. There
a head turns neighbouring channels, the first half of them by the row and the second by the column; here channel c turns
with c + d / 2, rows and columns taking turns. Queries and keys are put in order on the way, which changes no product.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vqdit.errors import CheckpointError, UserError
from vqdit.interop.layout import Conversion, Row
from vqdit.interop.weights import StateDict
from vqdit.models.dit import DiT
from vqdit.models.parts import FREQUENCIES, Parts

TURNS = ('feat_rope.freqs_cos', 'feat_rope.freqs_sin')


def parts_of_weights(state: Mapping[str, Any], width: int) -> Parts:
    """The parts that the tensors of a first block tell."""
    modulation = state.get('blocks.0.adaLN_modulation.1.bias')
    scales = modulation is not None and modulation.shape == (4 * width,)
    scaled = lambda key, other: 'scaled_rms' if f'blocks.0.{key}.weight' in state else other
    turned = {'positions': 'both', 'frequencies': 'text'} if TURNS[0] in state else {}
    return Parts(norm=scaled('norm1', 'layer'), query_norm=scaled('attn.q_norm', 'none'),
                 network='swiglu' if 'blocks.0.mlp.w12.weight' in state else 'gelu',
                 modulation='own_scales' if scales else 'own', **turned)


def heads_of_turns(state: StateDict, width: int) -> int | None:
    """The number of heads of a network with rotary positions, whose table is as wide as a head."""
    table = state.get(TURNS[0])
    return width // table.shape[1] if table is not None and table.ndim == 2 and table.shape[1] else None


def turns(model: DiT) -> dict[str, np.ndarray]:
    """The tables of rotary positions, fp32 [N, d], none for a network without: cosines and sines of channel pairs."""
    if model.parts.positions == 'table':
        return {}
    quarter = model.width // model.heads // 4
    places = np.indices(model.grid).reshape(2, -1)
    angles = np.concatenate([place[:, None] * FREQUENCIES['text'](quarter)[None] for place in places], axis=1)
    return {name: np.repeat(wave(angles), 2, axis=1).astype(np.float32)
            for name, wave in zip(TURNS, (np.cos, np.sin))}


def check_turns(state: StateDict, model: DiT, path: Path) -> None:
    """Raises CheckpointError where the tables of `turns` are not the ones that are computed here."""
    for name, table in turns(model).items():
        if not np.allclose(state[name], table, atol=1e-4):
            raise CheckpointError(f'{name} in {path} is not the table of rotary positions of {model.grid} tokens from '
                                  '1 to 1e-4, the only one that is computed here')


def head_order(model: DiT) -> np.ndarray:
    """int [d]: which of our channels of a head stands at each place of theirs. Raises UserError for odd quarters."""
    size = model.width // model.heads
    if model.parts.positions == 'table':
        return np.arange(size)
    if size % 4:
        raise UserError(f'heads of {size} channels have no halves of pairs, which LightningDiT turns by row and '
                        'column; choose heads of a multiple of 4 channels')
    axis, place, parity = np.indices((2, size // 4, 2)).reshape(3, -1)
    return parity * (size // 2) + 2 * place + axis


def qkv_rows(model: DiT) -> tuple[Row, Row]:
    """Kernel and bias of queries, keys and values, whose columns are (3, heads, d)."""
    order = np.arange(3 * model.width).reshape(3, model.heads, -1)
    order[:2] = order[:2][..., head_order(model)]
    kernel = Conversion(lambda x: x.reshape(x.shape[0], -1)[:, order.reshape(-1)].T,
                        lambda y, shape: y[np.argsort(order.reshape(-1))].T.reshape(shape))
    return (Row('blocks/attention/qkv/kernel', ('blocks.{}.attn.qkv.weight',), kernel),
            Row('blocks/attention/qkv/bias', ('blocks.{}.attn.qkv.bias',), _ordered(order)))


def head_norm_row(model: DiT, name: str) -> Row:
    """The scales of "query" or "key"."""
    return Row(f'blocks/attention/{name}_norm/scale', (f'blocks.{{}}.attn.{name[0]}_norm.weight',),
               _ordered(head_order(model)))


def _ordered(order: np.ndarray) -> Conversion:
    flat = order.reshape(-1)
    return Conversion(lambda x: x.reshape(-1)[flat], lambda y, shape: y[np.argsort(flat)].reshape(shape))
