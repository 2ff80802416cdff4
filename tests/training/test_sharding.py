from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from vqdit.errors import UserError
from vqdit.training.sharding import (
    check_batch,
    check_processes,
    check_split,
    fixed_size,
    make_mesh,
    place_batch,
    placed_activations,
    tree_shardings,
)


def _mesh(data=-1, fsdp=1, tensor=1, sequence=1):
    return make_mesh(ConfigDict({'data': data, 'fsdp': fsdp, 'sequence': sequence, 'tensor': tensor}))


def test_minus_one_takes_what_is_left():
    assert dict(_mesh(fsdp=2, tensor=2).shape) == {'data': 2, 'fsdp': 2, 'sequence': 1, 'tensor': 2}


@pytest.mark.parametrize('sizes', [(16, 1, 1), (-1, 3, 1), (0, 1, 1)])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(sizes):
    with pytest.raises(UserError, match='8 visible devices'):
        _mesh(*sizes)


def test_fixed_sizes_may_use_the_first_devices_only():
    assert _mesh(2, 2, 1).devices.ravel().tolist() == jax.devices()[:4]


def test_an_example_that_lies_on_two_processes_is_refused():
    """Four devices of each of two processes."""
    devices = np.array([SimpleNamespace(process_index=index // 4) for index in range(8)])
    for sizes in ((8, 1, 1, 1), (1, 8, 1, 1), (2, 1, 1, 4), (1, 2, 2, 2)):
        check_processes(devices.reshape(sizes))
    for sizes in ((1, 1, 1, 8), (1, 1, 8, 1), (1, 1, 2, 4)):
        with pytest.raises(UserError, match='over processes'):
            check_processes(devices.reshape(sizes))


def test_only_stated_sizes_say_how_many_devices_are_used():
    assert [fixed_size(ConfigDict({'data': data, 'fsdp': 2, 'tensor': 1})) for data in (-1, 3)] == [0, 6]


def test_rules_place_by_path_from_the_last_axis():
    tree = {'blocks': {'mlp': {'out': {'kernel': jnp.zeros((3, 8, 4))}}}, 'bias': jnp.zeros(6)}
    rules = (('mlp/out/kernel', ('tensor', 'fsdp')), ('bias', ('fsdp',)))
    placed = tree_shardings(tree, rules, _mesh(fsdp=4, tensor=2))
    assert placed['blocks']['mlp']['out']['kernel'].spec == PartitionSpec(None, 'tensor', 'fsdp')
    # 6 is not divisible by 4: the leaf stays whole.
    assert placed['bias'].spec == PartitionSpec(None)


def test_a_batch_is_split_over_data_and_fsdp():
    batch = place_batch({'x': np.arange(16).reshape(8, 2)}, _mesh(fsdp=2, tensor=2))
    assert batch['x'].addressable_shards[0].data.shape == (2, 2)
    np.testing.assert_array_equal(batch['x'], np.arange(16).reshape(8, 2))


def test_modules_lie_where_the_rules_say_and_nowhere_without_them():
    function = jax.jit(lambda x: nn.with_logical_constraint(x * 2.0, ('batch', 'tokens', 'width')))
    x = jnp.ones((4, 6, 8))
    with placed_activations(_mesh(1, fsdp=4, sequence=2)):
        assert function(x).sharding.spec == PartitionSpec('fsdp', 'sequence')
    assert function(x).sharding.device_set == {jax.devices()[0]}


def test_a_number_that_the_mesh_does_not_divide_names_those_that_do():
    with pytest.raises(UserError, match=r'mesh\.tensor 4 does not divide the heads, 6; choose one of 1, 2, 3, 6'):
        check_split('the heads', 6, _mesh(1, tensor=4), 'tensor')
    check_split('the heads', 8, _mesh(1, tensor=4), 'tensor')


def test_a_batch_that_does_not_divide_names_the_nearest():
    with pytest.raises(UserError, match='nearest that is: 16'):
        check_batch(13, _mesh(), 1)
    assert check_batch(16, _mesh(), 2) is None
    assert jax.device_count() == 8
