"""What convolutions see beyond the ends of the data and along its first axis: both sides, or the past alone.

A causal layer can go on where it stopped: when the `stream` collection is mutable it keeps there the last positions
that it saw, and when it finds some there it sees those instead of a margin. Chunks that follow one another, each of
whole strides, then give what they would give in one piece (`in_chunks`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from vqdit.errors import UserError

Margins = tuple[int, int]


class Padding(Protocol):
    """How layers treat the first axis of `x [B, *size, C]`, which is time for audio and video.

    Attributes:
        first_joint: the first axis of `x` along which statistics and attention may mix positions.
    """

    @property
    def first_joint(self) -> int: ...

    def lead(self, stride: int) -> int:
        """How often the first position is repeated before the data, when `stride` of them make a token."""
        ...

    def surround(self, module: nn.Module, x: jax.Array, total: int, *, extra: int = 0,
                 name: str = 'past') -> tuple[jax.Array, Margins]:
        """`x` and the zeros that its first axis still lacks for a convolution that shortens it by `total`.

        `extra` more are added at the end, so that the last stride is whole; `name` is that of the state in a stream.
        """
        ...

    def overlap(self, module: nn.Module, x: jax.Array, kernel: int, stride: int) -> tuple[jax.Array, Margins]:
        """`x` for a transposed convolution, and how much is to be cut from both ends of what it gives."""
        ...


@dataclass(frozen=True)
class Centred:
    """Both sides are seen; `mode` is that of `jax.numpy.pad`."""

    mode: str = 'constant'
    first_joint = 1

    def lead(self, stride: int) -> int:
        return 0

    def surround(self, module: nn.Module, x: jax.Array, total: int, *, extra: int = 0,
                 name: str = 'past') -> tuple[jax.Array, Margins]:
        margins = total - total // 2, total // 2 + extra
        return (x, margins) if self.mode == 'constant' else (_pad(x, margins, self.mode), (0, 0))

    def overlap(self, module: nn.Module, x: jax.Array, kernel: int, stride: int) -> tuple[jax.Array, Margins]:
        total = kernel - stride
        return x, (total - total // 2, total // 2)


@dataclass(frozen=True)
class Causal:
    """No position sees a later one; `mode`, of `jax.numpy.pad`, is what lies before the first."""

    mode: str = 'constant'
    first_joint = 2

    def lead(self, stride: int) -> int:
        return 0

    def surround(self, module: nn.Module, x: jax.Array, total: int, *, extra: int = 0,
                 name: str = 'past') -> tuple[jax.Array, Margins]:
        if total and module.has_variable('stream', name):
            x = _pad(_with_past(module, x, total, name), (0, extra), 'constant')
        else:
            if total and streams(module):
                self._check_reflection(x, total)
                keep(module, name, _last(_pad(x, (total, 0), self.mode), total))
            x = _pad(x, (total, extra), self.mode)
        return x, (0, 0)

    def overlap(self, module: nn.Module, x: jax.Array, kernel: int, stride: int) -> tuple[jax.Array, Margins]:
        reach = (kernel - 1) // stride
        if module.has_variable('stream', 'past'):
            return _with_past(module, x, reach, 'past'), (reach * stride, kernel - stride)
        keep(module, 'past', _last(_pad(x, (reach, 0), 'constant'), reach))
        return x, (0, kernel - stride)

    def _check_reflection(self, x: jax.Array, total: int) -> None:
        if self.mode == 'reflect' and x.shape[1] <= total:
            raise UserError(f'the first chunk is too short: a layer reflects {total} positions and has {x.shape[1]}; '
                            'make that chunk longer')


@dataclass(frozen=True)
class FirstAlone(Causal):
    """Causal, and the first position has a token of its own: a picture is a film of one frame.

    Its copies fill the stride before the second (MAGVIT-v2, arXiv:2310.05737).
    """

    def lead(self, stride: int) -> int:
        return stride - 1


PADDINGS: dict[str, Callable[..., Padding]] = {'centred': Centred, 'causal': Causal, 'first_alone': FirstAlone}


def streams(module: nn.Module) -> bool:
    """Whether what is computed will go on later."""
    return module.is_mutable_collection('stream') and not module.is_initializing()


def keep(module: nn.Module, name: str, value: Any) -> None:
    """Keeps `value` in the stream, if there is one."""
    if streams(module):
        module.put_variable('stream', name, value)


def in_chunks(codec: nn.Module, variables: Any, chunks: Iterable[jax.Array], method: str) -> Iterator[jax.Array]:
    """What `encode` or `decode` of a causal codec gives for each of the chunks of one piece of data."""
    state: Any = {}

    @jax.jit
    def step(variables: Any, state: Any, chunk: jax.Array) -> Any:
        return codec.apply(variables | state, chunk, method=method, mutable=['stream'])

    for chunk in chunks:
        out, state = step(variables, state, chunk)
        yield out


def complete(x: jax.Array, strides: Sequence[int], lead: int = 0) -> jax.Array:
    """`x [B, *size, C]` with its first position `lead` times before it, and its last ones repeated to whole strides."""
    x = _pad(x, (lead, 0), 'edge')
    missing = [(0, -side % stride) for side, stride in zip(x.shape[1:-1], strides, strict=True)]
    return jnp.pad(x, ((0, 0), *missing, (0, 0)), 'edge') if any(after for _, after in missing) else x


def crop(x: jax.Array, size: Sequence[int]) -> jax.Array:
    """The first positions of `x [B, *more, C]`: [B, *size, C]."""
    return x[(slice(None), *(slice(side) for side in size))]


def grid_of(size: Sequence[int], strides: Sequence[int], lead: int = 0) -> tuple[int, ...]:
    """The grid of the tokens of data of `size`, completed to whole strides. Raises UserError for another rank."""
    if len(size) != len(strides):
        raise UserError(f'data of size {tuple(size)} does not fit strides {tuple(strides)}, one for each axis')
    return tuple(-(-(side + before) // stride)
                 for side, stride, before in zip(size, strides, (lead, *(0,) * (len(size) - 1))))


def _with_past(module: nn.Module, x: jax.Array, count: int, name: str) -> jax.Array:
    x = jnp.concatenate([module.get_variable('stream', name), x], axis=1)
    keep(module, name, _last(x, count))
    return x


def _last(x: jax.Array, count: int) -> jax.Array:
    return x[:, x.shape[1] - count:]


def _pad(x: jax.Array, margins: Margins, mode: str) -> jax.Array:
    """Pads the first axis of size. What is too short to be reflected is first followed by zeros, then cut again."""
    if not any(margins):
        return x
    missing = max(0, max(margins) + 1 - x.shape[1]) if mode == 'reflect' else 0
    rest = ((0, 0),) * (x.ndim - 2)
    padded = jnp.pad(jnp.pad(x, ((0, 0), (0, missing), *rest)), ((0, 0), margins, *rest), mode)
    return padded[:, :padded.shape[1] - missing]
