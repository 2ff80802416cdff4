"""What a compiled program moves, read from its text: planted programs, and one that XLA made."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from vqdit.performance.program import Program, array_bytes, group_size
from vqdit.training.sharding import make_mesh

PLANTED = """HloModule planted, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%slicing (stack: f32[6,100], index: s32[]) -> f32[1,100] {
  %stack = f32[6,100]{1,0} parameter(0)
  %index = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice = f32[1,100]{1,0} dynamic-slice(%stack, %index, %zero), dynamic_slice_sizes={1,100}
}

%body (state: (s32[], f32[6,100])) -> (s32[], f32[6,100]) {
  %state = (s32[], f32[6,100]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %layers = f32[6,100]{1,0} get-tuple-element(%state), index=1
  %layer = f32[1,100]{1,0} fusion(%layers, %i), kind=kLoop, calls=%slicing
  %all = f32[8,100]{1,0} all-gather(%layer), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %next = (s32[], f32[6,100]{1,0}) tuple(%i, %layers)
}

%condition (state: (s32[], f32[6,100])) -> pred[] {
  %state = (s32[], f32[6,100]{1,0}) parameter(0)
  %bound = s32[]{:T(128)} constant(6)
  %i = s32[] get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%i, %bound), direction=LT
}

%hidden.1 (part: bf16[4]) -> bf16[8] {
  %part = bf16[4]{0} parameter(0)
  ROOT %whole = bf16[8]{0} all-gather(%part), channel_id=9, replica_groups=[4,2]<=[8], attributes={chain_id="1"}
}

%hidden.2 (part: bf16[4]) -> bf16[8] {
  %part = bf16[4]{0} parameter(0)
  ROOT %whole = bf16[8]{0} all-gather(%part), channel_id=9, replica_groups=[4,2]<=[8], attributes={chain_id="1"}
}

ENTRY %main (x: f32[6,100], y: bf16[4]) -> f32[6,100] {
  %x = f32[6,100]{1,0} parameter(0)
  %y = bf16[4]{0:S(1)} parameter(1)
  %start = s32[] constant(0)
  %first = (s32[], f32[6,100]{1,0}) tuple(%start, %x)
  %loop = (s32[], f32[6,100]{1,0}) while(%first), condition=%condition, body=%body
  %one = bf16[8]{0:S(1)} fusion(%y), kind=kCustom, calls=%hidden.1
  %two = bf16[8]{0:S(1)} fusion(%y), kind=kCustom, calls=%hidden.2
  %last = f32[6,100]{1,0} get-tuple-element(%loop), index=1
  ROOT %summed = f32[6,100]{1,0} all-reduce(%last), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
}
"""


def test_collectives_count_in_loops_by_their_trips_and_once_behind_several_fusions():
    traffic = Program(PLANTED).traffic()
    gathered = 6 * 7 * 400 + 1 * 8
    assert traffic.collectives == {'all-gather': gathered, 'all-reduce': 2 * 3 / 4 * 2400}
    assert traffic.links == gathered + 3600


def test_memory_counts_slices_as_what_is_sliced_and_nothing_that_lies_elsewhere():
    # In each of six iterations: the fusion reads 100 numbers and an index and writes 100, the gather 100 and 800.
    loop = 6 * (400 + 4 + 400 + 400 + 3200)
    assert Program(PLANTED).traffic().memory == loop + 2 * 2400


def test_trips_that_xla_writes_down_are_believed():
    known = PLANTED.replace('body=%body', 'body=%body, backend_config={"known_trip_count":{"n":"3"}}')
    assert Program(known).traffic().collectives['all-gather'] == 3 * 7 * 400 + 8


@pytest.mark.parametrize(('groups', 'size'), [
    ('replica_groups={{0,1},{2,3}}', 2), ('replica_groups=[2,4]<=[8]', 4), ('replica_groups={}', 8),
    ("replica_groups=mesh['axis_0'=2,'axis_1'=1,'axis_2'=4], device_ids=([2,4]T(1,0)) {'axis_0','axis_2'}, x={1}", 8),
    ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={3}", 4),
])  # fmt: skip
def test_groups_in_every_notation(groups, size):
    assert group_size(f', channel_id=1, {groups}, dimensions={{0}}', 8) == size


def test_bytes_of_types():
    assert array_bytes('(bf16[8,3]{1,0:T(8,128)(2,1)S(1)}, pred[5]{0}, s4[6], f32[])') == 48 + 5 + 3 + 4
    assert array_bytes('(bf16[8,3]{1,0:T(8,128)(2,1)S(1)}, f32[2]{0})', main_memory=True) == 8


def test_data_parallel_gradients_move_what_a_ring_must():
    mesh = make_mesh(ConfigDict({'data': 8, 'fsdp': 1, 'sequence': 1, 'tensor': 1}))
    split, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (('data',), ()))
    loss = lambda w, x: jnp.mean((x @ w) ** 2)
    arguments = (jax.ShapeDtypeStruct((16, 12), jnp.float32, sharding=everywhere),
                 jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=split))
    compiled = jax.jit(jax.grad(loss), out_shardings=everywhere).lower(*arguments).compile()
    assert Program(compiled.as_text()).traffic().collectives == {'all-reduce': 2 * 7 / 8 * 16 * 12 * 4}
