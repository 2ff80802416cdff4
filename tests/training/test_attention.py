"""Which attention a model gets, and that bf16 stays bf16."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax.core import FrozenDict

from vqdit.errors import UserError
from vqdit.models.multimodal import MultimodalDiT
from vqdit.tokenizers.spec import TokenLayout, TokenSpec
from vqdit.training.factory import choose_attention


@pytest.mark.parametrize(('name', 'dtype', 'head_width', 'backend', 'chosen'), [
    ('auto', jnp.bfloat16, 64, 'gpu', 'cudnn'), ('auto', jnp.float32, 64, 'gpu', 'xla'),
    ('auto', jnp.bfloat16, 72, 'gpu', 'cudnn'), ('auto', jnp.bfloat16, 60, 'gpu', 'xla'),
    ('auto', jnp.bfloat16, 256, 'gpu', 'xla'), ('auto', jnp.bfloat16, 64, 'tpu', 'xla'),
    ('auto', jnp.bfloat16, 64, 'cpu', 'xla'), ('xla', jnp.bfloat16, 64, 'gpu', 'xla'),
    ('cudnn', jnp.bfloat16, 64, 'gpu', 'cudnn'),
])  # fmt: skip
def test_the_implementation_follows_backend_precision_and_shape(name, dtype, head_width, backend, chosen):
    assert choose_attention(name, dtype, head_width, backend) == chosen


def test_an_unknown_implementation_is_refused():
    with pytest.raises(UserError, match=r'implementation "flash" is unknown; choose one of auto, xla, cudnn'):
        choose_attention('flash', jnp.bfloat16, 64, 'gpu')


def _products(jaxpr: Any, found: list) -> list:
    """(path, types of both sides) of every matrix product."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'dot_general':
            types = tuple(variable.aval.dtype.name for variable in equation.invars)
            found.append((str(equation.source_info.name_stack), types))
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(part, 'jaxpr', part)
                if hasattr(inner, 'eqns'):
                    _products(inner, found)
    return found


def test_every_product_of_the_bf16_path_is_in_bf16_forward_and_backward():
    layout = TokenLayout({'image': TokenSpec((4, 4), 16), 'text': TokenSpec((4,), 8)})
    model = MultimodalDiT(layout, FrozenDict({'image': 2}), width=32, depth=2, heads=2, dtype=jnp.bfloat16,
                          implementation='xla')
    codes, clock = jnp.zeros((2, layout.length), jnp.int32), jnp.zeros((2, layout.length))
    params = jax.eval_shape(model.init, jax.random.key(0), codes, clock)
    loss = lambda params: sum(jnp.sum(part**2) for part in model.apply(params, codes, clock).values())
    found = _products(jax.jit(jax.grad(loss)).trace(params).jaxpr, [])
    dense = [types for path, types in found if 'BTNH' not in path and 'BNTS' not in path]
    # Two embeddings, two of the clock, four in a block and two heads: three products each, but for the clock's input.
    assert len(dense) >= 28 and set(dense) == {('bfloat16', 'bfloat16')}
    # Inside attention jax.nn.dot_product_attention keeps the gradient of its logits in fp32.
    attention = [types for path, types in found if 'BTNH' in path or 'BNTS' in path]
    assert len(attention) == 6 and sum('float32' in types for types in attention) <= 2
