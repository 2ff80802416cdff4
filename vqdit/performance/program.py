"""What a compiled program moves: read from the text of its optimised HLO, loops counted as often as they run.

The traffic of a collective is what one device sends over its links by the best algorithm on a ring of n devices:
(n - 1) / n of the data for all-gather, reduce-scatter and all-to-all, twice that for all-reduce.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'^  (ROOT )?%?([\w.\-]+) = (.*)$')
_ARRAY = re.compile(r'(\w+)\[([\d,]*)\](\{[^}]*\})?')
_CALLED = re.compile(r'(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)')
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_FREE = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional', 'call', 'iota',
         'partition-id', 'replica-id', 'after-all', 'opt-barrier', 'async-start', 'async-update', 'async-done'}


@dataclass(frozen=True)
class Instruction:
    """One line of HLO: `name = result opcode(operands), attributes`."""

    name: str
    result: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool


@dataclass(frozen=True)
class Traffic:
    """Bytes that one device moves in one call.

    Attributes:
        collectives: over its links, by kind of collective.
        memory: to and from its main memory, as fusions read and write it.
    """

    collectives: Mapping[str, int]
    memory: int

    @property
    def links(self) -> int:
        return sum(self.collectives.values())


class Program:
    """The computations of an optimised HLO module."""

    def __init__(self, text: str):
        partitions = re.search(r'num_partitions=(\d+)', text)
        self.devices = int(partitions[1]) if partitions else 1
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ''
        for line in text.splitlines():
            if header := _HEADER.match(line):
                name = header[2]
                self.computations[name] = {}
                self.entry = name if header[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                instruction = _parse(found[2], found[3], bool(found[1]))
                self.computations[name][instruction.name] = instruction

    def traffic(self) -> Traffic:
        """The bytes of one call."""
        collectives: dict[str, int] = defaultdict(int)
        memory, chains = 0, set()
        for computation, instruction, times, fused in self._walk(self.entry, 1, False):
            kind = instruction.opcode.removesuffix('-start')
            if kind in COLLECTIVES:
                # A collective that hides behind several fusions stands in each of them.
                channel = re.search(r'channel_id=(\d+).*chain_id=', instruction.attributes)
                if channel and channel[1] in chains:
                    continue
                chains |= {channel[1]} if channel else set()
                name, bytes_moved = self._collective(computation, instruction, kind)
                collectives[name] += times * bytes_moved
            if not fused:
                memory += times * self._memory(computation, instruction)
        return Traffic(dict(collectives), memory)

    def _walk(self, name: str, times: int, fused: bool) -> Iterator[tuple[str, Instruction, int, bool]]:
        """Every instruction that runs: its computation, itself, how often, and whether a fusion holds it."""
        for instruction in self.computations.get(name, {}).values():
            yield name, instruction, times, fused
            if instruction.opcode in ('async-update', 'async-done'):
                continue
            called = _CALLED.findall(instruction.attributes)
            for branches in _BRANCHES.findall(instruction.attributes):
                called += [branch.strip().lstrip('%') for branch in branches.split(',')]
            again = times * self._trips(instruction) if instruction.opcode == 'while' else times
            inside = fused or instruction.opcode not in ('while', 'conditional', 'call', 'async-start')
            for inner in called:
                yield from self._walk(inner, again, inside)

    def _trips(self, loop: Instruction) -> int:
        """How often a loop runs that counts from 0 to a constant, 1 when nothing says so."""
        if known := re.search(r'known_trip_count[":{n]+(\d+)', loop.attributes):
            return int(known[1])
        condition = re.search(r'condition=%?([\w.\-]+)', loop.attributes)
        instructions = self.computations[condition[1]].values() if condition else ()
        constants = [part.attributes for part in instructions if part.opcode == 'constant' and 's32[]' in part.result]
        bounds = [re.match(r'\((\d+)\)', text) for text in constants]
        return max((int(bound[1]) for bound in bounds if bound), default=1)

    def _collective(self, computation: str, instruction: Instruction, kind: str) -> tuple[str, int]:
        size = sum(array_bytes(self._result(computation, name)) for name in instruction.operands)
        group = group_size(instruction.attributes, self.devices)
        if kind == 'all-reduce' and computation.startswith('all-reduce-scatter'):
            kind = 'reduce-scatter'  # How a TPU fuses the two halves of it.
        factors = {'all-reduce': 2 * (group - 1) / group, 'all-gather': group - 1, 'collective-permute': 1}
        return kind, round(size * factors.get(kind, (group - 1) / group))

    def _memory(self, computation: str, instruction: Instruction) -> int:
        if instruction.opcode in _FREE or instruction.opcode.endswith('-done'):
            return 0
        operands = [self._result(computation, name) for name in instruction.operands]
        if instruction.opcode in ('dynamic-slice', 'slice', 'gather', 'slice-start'):
            moved = array_bytes(instruction.result.split('},')[0], main_memory=True)
            return 2 * moved
        if instruction.opcode == 'dynamic-update-slice':
            return 2 * array_bytes(operands[1], main_memory=True)
        if instruction.opcode == 'copy-start':
            source = operands[0]
            written = instruction.result.removeprefix('(').split('},')[0]
            return sum(array_bytes(part, main_memory=True) for part in (source, written))
        called = _CALLED.search(instruction.attributes) if instruction.opcode == 'fusion' else None
        if called is None:
            return sum(array_bytes(part, main_memory=True) for part in (*operands, instruction.result))
        return self._fusion_memory(called[1], operands, instruction.result)

    def _fusion_memory(self, name: str, operands: Sequence[str], result: str) -> int:
        """Of a parameter that is only sliced the slices count, of a result that is updated in place the update."""
        inner = self.computations[name]
        read: dict[str, int] = defaultdict(int)
        for user in inner.values():
            for operand in set(user.operands):
                read[operand] += _bytes_read(inner, user, operand)
        moved = 0
        for parameter in (part for part in inner.values() if part.opcode == 'parameter'):
            number = int(parameter.attributes.split(')')[0].lstrip('('))
            moved += min(array_bytes(operands[number], main_memory=True), read[parameter.name])
        root = next(part for part in inner.values() if part.root)
        results = [inner[item] for item in root.operands] if root.opcode == 'tuple' else [root]
        for part, shape in zip(results, _ARRAY.finditer(result)):
            whole = array_bytes(shape[0], main_memory=True)
            moved += min(whole, array_bytes(inner[part.operands[1]].result)) if _is_update(part) else whole
        return moved

    def _result(self, computation: str, name: str) -> str:
        found = self.computations[computation].get(name)
        return found.result if found else ''


def array_bytes(shape: str, main_memory: bool = False) -> int:
    """Bytes of all arrays in an HLO type; with `main_memory` without those that a layout places elsewhere, `S(1)`."""
    return sum(math.prod(int(side) for side in sides.split(',') if side) * _element_bits(kind) // 8
               for kind, sides, layout in _ARRAY.findall(shape) if not (main_memory and 'S(' in layout))


def group_size(attributes: str, devices: int) -> int:
    """How many devices take part in a collective, from its `replica_groups`."""
    if found := re.search(r'replica_groups=\{\{([\d,]*)\}', attributes):
        return found[1].count(',') + 1
    if found := re.search(r'replica_groups=\[\d+,(\d+)\]<=', attributes):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{('[^}]*)\}", attributes):
        sizes = {name: int(size) for name, size in re.findall(r"('\w+')=(\d+)", found[1])}
        return math.prod(sizes[name] for name in re.findall(r"'\w+'", found[2]))
    return devices


def _bytes_read(inner: Mapping[str, Instruction], user: Instruction, name: str) -> int:
    """What `user` needs of the value `name` of the same computation."""
    if user.opcode in ('dynamic-slice', 'slice', 'gather'):
        return array_bytes(user.result)
    if _is_update(user) and user.operands[0] == name:
        return 0
    return array_bytes(inner[name].result)


def _is_update(instruction: Instruction) -> bool:
    return instruction.opcode == 'dynamic-update-slice'


def _element_bits(kind: str) -> int:
    if kind == 'pred':
        return 8
    bits = re.match(r'[a-z]+(\d+)', kind)
    return int(bits[1]) if bits else 0


def _parse(name: str, text: str, root: bool) -> Instruction:
    """`text` is `type opcode(operands), attributes`; of an instruction without operands the attributes begin at `(`."""
    end = _closing(text) if text.startswith('(') else text.index(' ')
    result, rest = text[:end], text[end:].lstrip()
    opcode, _, rest = rest.partition('(')
    end = _closing(f'({rest}')
    operands = tuple(re.findall(r'%([\w.\-]+)', rest[:end - 1]))
    return Instruction(name, result, opcode, operands, rest[end - 1:] if operands else f'({rest}', root)


def _closing(text: str) -> int:
    """Where the bracket that opens `text` has closed."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == '(') - (letter == ')')
        if depth == 0:
            return place + 1
    return len(text)
