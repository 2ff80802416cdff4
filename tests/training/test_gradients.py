"""Gradients of slices and of copies of the model, and what travels between the copies."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from vqdit.errors import UserError
from vqdit.performance.program import Program
from vqdit.training.gradients import accumulated, reduce_dtype, reduced_in
from vqdit.training.sharding import AXES, make_mesh, place_batch, placed_activations, tree_shardings

PARAMS = {'kernel': jnp.linspace(-1.0, 1.0, 24).reshape(8, 3), 'bias': jnp.ones(3)}
BATCH = {'x': np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)}
RULES = (('kernel', ('fsdp', None)),)


def _loss(params, codebook, batch, key):
    x = nn.with_logical_constraint(batch['x'], ('batch', 'width'))
    hidden = jnp.tanh(x @ params['kernel'] + params['bias'][None])
    return jnp.mean(hidden**2), (codebook, {'draw': jax.random.uniform(key)})


GRADIENT = jax.value_and_grad(_loss, has_aux=True)


@functools.cache
def _mesh(data):
    return make_mesh(ConfigDict({axis: {'data': data, 'fsdp': 2}.get(axis, 1) for axis in AXES}))


@functools.cache
def _on_copies(dtype, data=4, parts=1):
    """The values of copies, and where the gradients lie as the parameters do."""
    mesh, places = _mesh(data), tree_shardings(PARAMS, RULES, _mesh(data))
    gradient = accumulated(GRADIENT, parts)
    gradient = gradient if dtype is None else reduced_in(dtype, gradient)
    return jax.jit(lambda params, batch: gradient(params, {}, batch, jax.random.key(0)),
                   out_shardings=(None, places)), (jax.device_put(PARAMS, places), place_batch(BATCH, mesh)), mesh


def _run(*args):
    function, inputs, mesh = _on_copies(*args)
    with placed_activations(mesh):
        return function(*inputs)


def _summed(folder, *args):
    """The arrays that a device sums with others after all slices, before the CPU, which adds in fp32, widens them."""
    function, inputs, mesh = _on_copies(*args)
    with placed_activations(mesh):
        function.lower(*inputs).compile({'xla_dump_to': str(folder), 'xla_dump_hlo_pass_re': 'spmd-partitioning'})
    text, = (path.read_text() for path in folder.glob('*after_spmd-partitioning*'))
    program = Program(text)
    results = [i.result for i in program.computations[program.entry].values() if i.opcode == 'all-reduce']
    return {result.split('{')[0] for result in results}


@pytest.mark.parametrize('data', [1, 4])
def test_gradients_of_copies_average_to_that_of_the_batch(data):
    (value, _), whole = jax.jit(GRADIENT)(PARAMS, {}, BATCH, jax.random.key(0))
    (mean, _), grads = _run(jnp.float32, data)
    assert float(mean) == pytest.approx(float(value), rel=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), grads, whole)
    assert grads['kernel'].dtype == jnp.float32


def test_in_bfloat16_they_are_off_by_its_digits():
    exact, rounded = (_run(dtype)[1]['kernel'] for dtype in (jnp.float32, jnp.bfloat16))
    error = np.abs(rounded - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 2**-7
    np.testing.assert_array_equal(rounded, rounded.astype(jnp.bfloat16).astype(jnp.float32))


@pytest.mark.parametrize(('dtype', 'wire'), [(jnp.float32, 'f32'), (jnp.bfloat16, 'bf16')])
def test_the_type_that_travels_between_copies(tmp_path, dtype, wire):
    """The bias, and the half of the kernel that a device holds."""
    assert {f'{wire}[3]', f'{wire}[4,3]'} <= _summed(tmp_path, dtype)


def test_slices_are_summed_before_they_travel(tmp_path):
    folders = [tmp_path / name for name in ('alone', 'copies')]
    assert not _summed(folders[0], None, 4, 2), 'every slice on its own, within the loop over them'
    assert {'bf16[3]', 'bf16[4,3]'} <= _summed(folders[1], jnp.bfloat16, 4, 2)


def test_slices_take_the_memory_of_one_gradient():
    """Two sums are alive at a time, however many slices there are."""
    shapes = jax.ShapeDtypeStruct((512, 512), jnp.float32), jax.ShapeDtypeStruct((16, 512), jnp.float32)
    loss = lambda kernel, codebook, x, key: (jnp.mean(jnp.tanh(x @ kernel) ** 2), (codebook, {}))

    def temporary(parts):
        gradient = accumulated(jax.value_and_grad(loss, has_aux=True), parts)
        function = jax.jit(lambda kernel, x: gradient(kernel, {}, x, jax.random.key(0))[1])
        return function.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert temporary(16) <= temporary(4) < 4 * 512 * 512 * 4


def test_every_copy_draws_for_itself():
    (_, (_, metrics)), _ = _run(jnp.bfloat16)
    draws = [jax.random.uniform(jax.random.fold_in(jax.random.key(0), copy)) for copy in range(4)]
    assert float(metrics['draw']) == pytest.approx(float(np.mean(draws)), rel=1e-6)


def test_a_codebook_has_no_copies():
    with pytest.raises(ValueError, match='codebook'):
        reduced_in(jnp.bfloat16, GRADIENT)(PARAMS, {'seen': jnp.zeros(1)}, BATCH, jax.random.key(0))


def test_an_unknown_type_is_told_the_known_ones():
    assert reduce_dtype(ConfigDict({'reduce_dtype': 'bfloat16'})) == jnp.bfloat16
    assert reduce_dtype(ConfigDict({})) is None
    with pytest.raises(UserError, match=r'reduce_dtype "bfloat" is unknown.*Did you mean "bfloat16"'):
        reduce_dtype(ConfigDict({'reduce_dtype': 'bfloat'}))
