"""Decoding piece by piece, for data whose activations do not fit into memory at once."""

import itertools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from vqdit.errors import UserError


def decode_in_tiles(decode: Callable[[jax.Array], jax.Array], codes: jax.Array, tile: Sequence[int],
                    margin: int) -> np.ndarray:
    """Data [B, *size, C] of codes int32 [B, *grid, levels], `tile` places of the grid at a time.

    A tile is decoded with `margin` more places around it, or as many as there are, and what they give is thrown away.
    Where the decoder's convolutions reach no further, this is what `decode`, of whole strides and most often compiled,
    gives for all codes; attention and statistics over all positions leave seams. Tiles have one shape.

    Raises UserError for tiles of another rank than the grid, or without a place.
    """
    grid = codes.shape[1:-1]
    if len(tile) != len(grid) or min(*tile, margin + 1) < 1:
        raise UserError(f'tile={tuple(tile)} with margin={margin} does not fit codes on a grid of {grid}; give every '
                        'axis at least 1')
    seen = [min(side + 2 * margin, most) for side, most in zip(tile, grid)]
    whole: np.ndarray | None = None
    for corner in itertools.product(*(range(0, most, side) for side, most in zip(tile, grid))):
        starts = [max(0, min(first - margin, most - width)) for first, width, most in zip(corner, seen, grid)]
        part = np.asarray(decode(codes[_box(starts, [start + width for start, width in zip(starts, seen)])]))
        steps = [side // width for side, width in zip(part.shape[1:-1], seen)]
        if whole is None:
            size = [most * step for most, step in zip(grid, steps)]
            whole = np.empty((len(part), *size, part.shape[-1]), part.dtype)
        ends = [min(first + side, most) for first, side, most in zip(corner, tile, grid)]
        kept = _box([(first - start) * step for first, start, step in zip(corner, starts, steps)],
                    [(end - start) * step for end, start, step in zip(ends, starts, steps)])
        whole[_box([first * step for first, step in zip(corner, steps)],
                   [end * step for end, step in zip(ends, steps)])] = part[kept]
    assert whole is not None
    return whole


def _box(starts: Sequence[int], ends: Sequence[int]) -> tuple[slice, ...]:
    return slice(None), *(slice(start, end) for start, end in zip(starts, ends))
