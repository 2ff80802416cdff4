"""FLOPs counted in traced programs; nothing is compiled."""

import jax
import jax.numpy as jnp
import pytest
from flax.core import FrozenDict

from vqdit.models.multimodal import MultimodalDiT
from vqdit.models.published import published_dit
from vqdit.performance.flops import Flops, count_flops
from vqdit.tokenizers.spec import TokenLayout, TokenSpec


def _count(function, *arguments) -> Flops:
    return count_flops(jax.jit(function).trace(*arguments).jaxpr)


def _zeros(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_a_product_of_matrices_takes_two_flops_for_each_number_of_it():
    assert _count(jnp.matmul, _zeros(3, 4, 5), _zeros(3, 5, 6)) == Flops(720, 720)


def test_a_convolution_takes_its_window_at_every_output():
    numbers = ('NHWC', 'HWIO', 'NHWC')
    convolve = lambda x, kernel: jax.lax.conv_general_dilated(x, kernel, (2, 2), 'SAME', dimension_numbers=numbers)
    assert _count(convolve, _zeros(2, 8, 8, 3), _zeros(3, 3, 3, 16)).model == 2 * (2 * 4 * 4 * 16) * (3 * 3 * 3)


def test_a_loop_counts_as_often_as_it_runs_and_a_choice_by_its_dearest_branch():
    def loop(x, w):
        x, _ = jax.lax.scan(lambda x, _: (x @ w, None), x, length=7)
        return jax.lax.cond(x.sum() > 0, lambda x: x @ w, lambda x: x, x)
    assert _count(loop, _zeros(4, 4), _zeros(4, 4)).model == 8 * 128


LAYOUT = TokenLayout({'image': TokenSpec((4, 4), 16), 'text': TokenSpec((4,), 8)})


def _gradient_flops(remat: str) -> Flops:
    model = MultimodalDiT(LAYOUT, FrozenDict({}), width=32, depth=3, heads=2, remat=remat)
    codes, clock = jnp.zeros((2, LAYOUT.length), jnp.int32), jnp.zeros((2, LAYOUT.length))
    params = jax.eval_shape(model.init, jax.random.key(0), codes, clock)
    loss = lambda params: sum(jnp.sum(part) for part in model.apply(params, codes, clock).values())
    return _count(jax.grad(loss), params)


def test_the_mathematics_of_a_step_are_the_same_whatever_is_computed_again():
    none, dots, full = (_gradient_flops(remat) for remat in ('none', 'dots', 'full'))
    assert none.model == none.executed == dots.model == full.model
    # The blocks' forward pass once more: dense matmuls and attention, three layers.
    tokens, width, hidden = 2 * 20, 32, 96
    dense = 2 * tokens * width * (3 * width + width + 3 * hidden)
    attention = 2 * 2 * 2 * 20 * 20 * width
    assert full.executed - full.model == 3 * (dense + attention)
    assert dots.executed - dots.model == 3 * attention


@pytest.mark.parametrize(('name', 'giga_products'), [('DiT-S/2', 6.06), ('DiT-XL/2', 118.64)])
def test_the_published_networks_have_the_published_numbers_of_products(name, giga_products):
    """Peebles & Xie 2023, table 4."""
    model = published_dit(name)
    arguments = (_zeros(1, 32, 32, 4), _zeros(1), jax.ShapeDtypeStruct((1,), jnp.int32))
    params = jax.eval_shape(model.init, jax.random.key(0), *arguments)
    assert _count(model.apply, params, *arguments).model / 2e9 == pytest.approx(giga_products, rel=2e-3)
