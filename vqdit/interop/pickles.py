"""The pickles inside PyTorch files, read by an interpreter that executes nothing.

A pickle is a program for a stack machine, and Python's own machine imports and calls what the program names. This one
knows containers, numbers, strings and tensors. It has no way to import or call anything: any other name or
instruction ends the reading.
"""

import pickletools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from vqdit.errors import CheckpointError

STORAGES: Mapping[str, np.dtype] = {f'torch.{kind}Storage': np.dtype(dtype) for kind, dtype in (
    ('Float', np.float32), ('Double', np.float64), ('Half', np.float16), ('BFloat16', jnp.bfloat16),
    ('Long', np.int64), ('Int', np.int32), ('Short', np.int16), ('Char', np.int8), ('Byte', np.uint8),
    ('Bool', np.bool_))}
"""The kinds of storage and the dtypes of their elements."""

Storage = Callable[[str, np.dtype, int], np.ndarray]
"""The elements [count] of a storage, of its key, dtype and count."""


@dataclass(frozen=True)
class Symbol:
    """A name that a pickle may mention; it stands for itself, nothing is imported."""

    name: str


class Namespace(dict):
    """The attributes of an `argparse.Namespace`."""


def strided_view(storage: np.ndarray, offset: int, size: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """A read-only view of a storage [count]; strides in elements. Raises ValueError when it leaves the storage."""
    numbers = (offset, *size, *strides)
    if not all(type(number) is int and number >= 0 for number in numbers) or len(size) != len(strides):
        raise ValueError(f'a tensor of offset {offset}, size {size} and strides {strides}')
    elements = int(np.prod(np.array(size, dtype=object)))
    last = offset + sum((side - 1) * step for side, step in zip(size, strides))
    if elements > storage.size or (elements and last >= storage.size):
        raise ValueError(f'a tensor of size {size} in a storage of {storage.size} elements')
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


def _tensor(storage: np.ndarray, offset: int, size: Sequence[int], strides: Sequence[int], *_) -> np.ndarray:
    if not isinstance(storage, np.ndarray):
        raise ValueError('a tensor without a storage')
    return strided_view(storage, offset, size, strides)


CALLS: Mapping[str, Callable[..., Any]] = {
    'collections.OrderedDict': lambda: {},
    'argparse.Namespace': Namespace,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_parameter': lambda tensor, *_: tensor,
}
"""What a pickle may build, and how it is built here."""

MARK = object()
VALUES = ('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE', 'SHORT_BINUNICODE')
CONSTANTS: Mapping[str, Callable[[], Any]] = {
    'NONE': lambda: None, 'NEWTRUE': lambda: True, 'NEWFALSE': lambda: False, 'EMPTY_DICT': dict, 'EMPTY_LIST': list,
    'EMPTY_TUPLE': tuple, 'MARK': lambda: MARK}


@dataclass
class Machine:
    """The stack and the memo while one pickle is read; there is a method for every instruction with a rule."""

    storage: Storage
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def step(self, code: str, argument: Any) -> None:
        """Follows one instruction. Raises ValueError for one that is not known."""
        if code in VALUES:
            self.stack.append(argument)
        elif code in CONSTANTS:
            self.stack.append(CONSTANTS[code]())
        elif code in ('BINPUT', 'LONG_BINPUT', 'MEMOIZE'):
            self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
        elif code in ('BINGET', 'LONG_BINGET'):
            self.stack.append(self.memo[argument])
        elif code in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
            count = int(code[-1])
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif code in RULES:
            RULES[code](self, argument)
        elif code not in ('PROTO', 'FRAME', 'STOP'):
            raise ValueError(f'the instruction {code}')

    def close_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._to_mark()))

    def append(self, _: Any) -> None:
        self._list_below([self.stack.pop()])

    def extend(self, _: Any) -> None:
        self._list_below(self._to_mark())

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._dict_below([key, value])

    def set_items(self, _: Any) -> None:
        self._dict_below(self._to_mark())

    def name(self, argument: str) -> None:
        self._symbol(argument.replace(' ', '.', 1))

    def name_on_stack(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._symbol(f'{module}.{name}')

    def build(self, _: Any) -> None:
        arguments, symbol = self.stack.pop(), self.stack.pop()
        if not isinstance(symbol, Symbol) or symbol.name not in CALLS or type(arguments) is not tuple:
            raise ValueError('a call of what is not a name')
        self.stack.append(CALLS[symbol.name](*arguments))

    def set_state(self, _: Any) -> None:
        """Attributes count for a Namespace alone; those of a dict say which version of a module wrote it."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Namespace):
            self.stack[-1].update(state)
        elif type(self.stack[-1]) is not dict:
            raise ValueError('the state of an unknown object')

    def load_storage(self, _: Any) -> None:
        kind, symbol, key, _, count = self.stack.pop()
        if kind != 'storage' or type(key) is not str or type(count) is not int or count < 0:
            raise ValueError(f'a reference to "{kind}" with key {key}')
        self.stack.append(self.storage(key, STORAGES[symbol.name], count))

    def _symbol(self, name: str) -> None:
        if name not in CALLS and name not in STORAGES:
            raise ValueError(f'the name {name!r}')
        self.stack.append(Symbol(name))

    def _to_mark(self) -> list[Any]:
        place = max(index for index, item in enumerate(self.stack) if item is MARK)
        items = self.stack[place + 1:]
        del self.stack[place:]
        return items

    def _list_below(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError('items for what is not a list')
        self.stack[-1].extend(items)

    def _dict_below(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], dict):
            raise ValueError('items for what is not a dict')
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))


RULES: Mapping[str, Callable[[Machine, Any], None]] = {
    'TUPLE': Machine.close_tuple, 'APPEND': Machine.append, 'APPENDS': Machine.extend, 'SETITEM': Machine.set_item,
    'SETITEMS': Machine.set_items, 'GLOBAL': Machine.name, 'STACK_GLOBAL': Machine.name_on_stack,
    'REDUCE': Machine.build, 'NEWOBJ': Machine.build, 'BUILD': Machine.set_state, 'BINPERSID': Machine.load_storage}


def read_pickle(data: bytes, storage: Storage, path: object) -> Any:
    """The containers and tensors of a pickle.

    Raises CheckpointError, naming `path`, for a pickle that is damaged or holds anything else.
    """
    machine = Machine(storage)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            machine.step(opcode.name, argument)
        (content,) = machine.stack
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise CheckpointError(f'{path} is damaged or holds more than tensors ({error}); nothing of it was executed. '
                              'Use a file of weights alone, best as safetensors') from error
    return content
