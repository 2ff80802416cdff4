"""FLOPs of matrix products and convolutions, counted in the traced program, before any compiler has changed it.

XLA's own count takes the body of a loop once, however often the loop runs; a transformer is such a loop.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

RECOMPUTED = 'rematted_computation'
"""How JAX names what the backward pass of `jax.checkpoint` computes a second time."""


@dataclass(frozen=True)
class Flops:
    """FLOPs of one call on all devices together.

    Attributes:
        model: of the mathematics alone, each product once.
        executed: with what rematerialisation computes again.
    """

    model: int
    executed: int

    def __add__(self, other: 'Flops') -> 'Flops':
        return Flops(self.model + other.model, self.executed + other.executed)

    def __mul__(self, times: int) -> 'Flops':
        return Flops(self.model * times, self.executed * times)


def count_flops(jaxpr: Any, recomputed: bool = False) -> Flops:
    """The FLOPs of a jaxpr, such as `jax.jit(f).trace(...).jaxpr`: two for a multiplication and its addition.

    A `scan` counts as often as it runs, the dearest branch of a `cond` once, the body of a `while` once, because
    nothing says how often it runs.
    """
    total = Flops(0, 0)
    for equation in getattr(jaxpr, 'jaxpr', jaxpr).eqns:
        again = recomputed or RECOMPUTED in str(equation.source_info.name_stack)
        own = _own_flops(equation)
        total += Flops(0 if again else own, own)
        inner = [count_flops(part, again) for part in _inner(equation)]
        if equation.primitive.name == 'cond':
            inner = [max(inner, key=lambda flops: flops.executed)]
        for flops in inner:
            total += flops * _repetitions(equation)
    return total


def _own_flops(equation: Any) -> int:
    shapes: list[tuple[int, ...]] = [getattr(variable.aval, 'shape', ()) for variable in equation.invars]
    if equation.primitive.name == 'dot_general':
        (contracted, _), _ = equation.params['dimension_numbers']
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shapes[0][axis] for axis in contracted)
    if equation.primitive.name == 'conv_general_dilated':
        numbers = equation.params['dimension_numbers']
        # Each output takes a multiplication for every number of the kernel [outputs, inputs / groups, *window].
        kernel = math.prod(shapes[1]) // shapes[1][numbers.rhs_spec[0]]
        dilated = math.prod(equation.params['lhs_dilation'])
        return 2 * math.prod(equation.outvars[0].aval.shape) * kernel // dilated
    if equation.primitive.name.startswith('dot_product_attention_'):
        # cuDNN: q k and (q k) v forward, five products of that size backward; [B, N, H, d] each.
        batch, queries, heads, width = shapes[0]
        products = 2 if 'fwd' in equation.primitive.name else 5
        return products * 2 * batch * heads * queries * shapes[1][1] * width
    return 0


def _inner(equation: Any) -> Iterator[Any]:
    """The programs that an equation calls."""
    for value in equation.params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(part, 'jaxpr', part), 'eqns'):
                yield part


def _repetitions(equation: Any) -> int:
    if equation.primitive.name == 'scan':
        return equation.params['length']
    if equation.primitive.name == 'shard_map':
        mesh = equation.params['mesh']
        return math.prod(mesh.shape[axis] for axis in equation.params['manual_axes'])
    return 1
