import argparse
import collections
import os
import subprocess
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from torch_archive import Payload, dumped, name, pickled, tensor, text, write_archive

from vqdit.errors import CheckpointError, UserError
from vqdit.interop.pickles import read_pickle
from vqdit.interop.torch_file import read_torch
from vqdit.interop.weights import read_weights


def _read(tmp_path, data, **options):
    return read_torch(write_archive(tmp_path / 'weights.pt', data, **options))


def test_tensors_are_views_by_offset_and_strides(tmp_path):
    whole = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(_read(tmp_path, pickled(tensor((2, 3), (3, 1))))['x'], whole.reshape(2, 3))
    np.testing.assert_array_equal(_read(tmp_path, pickled(tensor((3, 2), (1, 3))))['x'], whole.reshape(2, 3).T)
    np.testing.assert_array_equal(_read(tmp_path, pickled(tensor((2,), (2,), offset=1)))['x'], whole[1:4:2])
    assert _read(tmp_path, pickled(tensor((), ())))['x'] == 0
    assert _read(tmp_path, pickled(tensor((0, 3), (3, 1))))['x'].shape == (0, 3)


def test_storages_are_mapped_not_read(tmp_path):
    x = _read(tmp_path, pickled(tensor((2, 3), (3, 1))))['x']
    with pytest.raises(ValueError, match='read-only'):
        x[0] = 1
    while not isinstance(x, np.memmap):
        x = x.base
        assert x is not None


@pytest.mark.parametrize(('kind', 'dtype'), [
    ('Half', np.float16), ('BFloat16', jnp.bfloat16), ('Long', np.int64), ('Bool', np.bool_), ('Double', np.float64)])
def test_dtypes(tmp_path, kind, dtype):
    values = np.array([0, 1, 1, 0, 1, 0]).astype(dtype)
    x = _read(tmp_path, pickled(tensor((6,), (1,), kind=f'{kind}Storage')), storages={'0': values})['x']
    assert x.dtype == values.dtype
    np.testing.assert_array_equal(x, values)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_containers_of_training_checkpoints(tmp_path, protocol):
    """Python's own pickler is the oracle: what it wrote is read to equal content."""
    ordered = collections.OrderedDict(b=[1, -2, 3.5, 2**40, 300, 70_000], a=(None, True, False), c=(1, 2, 3, 4), d=())
    ordered['again'] = ordered['b']
    rest = {'one': (1,), 'empty': [], 7: 'é'}
    settings = {'model': 'DiT-XL/2', 'lr': 1e-4}
    read = _read(tmp_path, dumped({'args': argparse.Namespace(**settings), 'state': ordered, **rest}, protocol))
    assert read == {'args': settings, 'state': dict(ordered), **rest}
    assert read['state']['again'] is read['state']['b']


def _payloads(canary):
    """Pickles that make the file `canary` if anything in them is called."""
    touch = f'open({canary!r}, "w").close()'
    shell = f'touch {canary}'
    yield from (dumped({'x': Payload(function, *arguments)}, protocol) for protocol in (0, 1, 2, 4, 5)
                for function, arguments in ((os.system, (shell,)), (eval, (touch,)), (exec, (touch,))))
    yield dumped({'x': Payload(subprocess.check_call, ['touch', canary])})
    yield dumped({'x': Payload(open, canary, 'w')})
    yield dumped({'x': Payload(__import__, 'os')})
    yield dumped({'x': Payload(Path, canary)})
    yield dumped({'x': Payload(collections.OrderedDict, state={'__setattr__': os.system})})
    yield pickled(name('numpy', '__builtins__'), text('eval'), b'\x86R')
    yield pickled(name('torch._utils', '_rebuild_tensor_v2.__globals__'))
    yield pickled(name('torch', 'load'), text(canary), b'\x85R')
    yield pickled(name('pip', 'main'), text(shell), b'\x85R')
    yield pickled(b'(' + text(shell) + b'ios\nsystem\n')  # INST
    yield pickled(b'(' + name('os', 'system') + text(shell) + b'o')  # OBJ
    yield pickled(b'\x82\x01')  # EXT1
    yield pickled(text('os'), text('system'), b'\x93', text(shell), b'\x85R')  # STACK_GLOBAL
    yield pickled(name('torch', 'FloatStorage'), text(shell), b'\x85R')  # a storage called as a function
    yield pickled(text('os.system'), text(shell), b'\x85R')  # a string called as a function
    yield pickled(b'Pos.system\n')  # a persistent id of text


def test_payloads_are_refused_and_never_run(tmp_path):
    canary = tmp_path / 'canary'
    payloads = list(_payloads(str(canary)))
    assert len(payloads) >= 25
    for data in payloads:
        with pytest.raises(CheckpointError, match='nothing of it was executed'):
            _read(tmp_path, data)
    assert not canary.exists()


@pytest.mark.parametrize(('size', 'strides', 'options'), [
    ((2, 3), (-3, 1), {}), ((2, 3), (3, 1), {'offset': 1}), ((2, 3), (3, 1), {'offset': -1}), ((7,), (1,), {}),
    ((2, 2), (5, 2), {}), ((1_000_000, 1_000_000), (0, 0), {}), ((2, 3), (1,), {}), ((6,), (1,), {'count': 7}),
    ((6,), (1,), {'key': '1'}), ((6,), (1,), {'key': '../../etc/passwd'}), ((6,), (1,), {'kind': 'HalfTensor'})])
def test_tensors_that_leave_their_storage_are_refused(tmp_path, size, strides, options):
    with pytest.raises(CheckpointError, match=r'weights\.pt'):
        _read(tmp_path, pickled(tensor(size, strides, **options)))


@pytest.mark.parametrize('data', [
    b'', b'.', b'}', b'N0.', b'\x80\x02}(.', b'\x80\x02}N.', b'\x80\x02]}Ns.', b'\x80\x02}]Ns.', b'h\x07.',
    b'\x80\x02}X\xff\xff\xff\xffx', b'\x80\x02tt.', b'\x80\x02(lp0\n.', b'\x80\x02}}b}b]}b.'])
def test_damaged_pickles_are_refused(data):
    with pytest.raises(CheckpointError, match='somewhere'):
        read_pickle(data, lambda *_: np.zeros(1), 'somewhere')


def _swapped_local_name(path):
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'archive/data/0', b'archive/data/9', 1))


def _encrypted(path):
    raw = bytearray(path.read_bytes())
    raw[raw.index(b'PK\x01\x02') + 8] |= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(('options', 'harm'), [
    ({}, lambda path: path.write_bytes(path.read_bytes()[:-40])),
    ({}, lambda path: path.write_bytes(b'<html>not found</html>')),
    ({}, lambda path: path.write_bytes(b'')),
    ({}, _swapped_local_name),
    ({}, _encrypted),
    ({'compression': zipfile.ZIP_DEFLATED}, lambda path: None),
    ({'extra': [('other/data.pkl', b'N.')]}, lambda path: None),
    ({'extra': [('archive/x', b'1'), ('./archive/x', b'2'), ('archive/.data/data.pkl', b'N.')]}, lambda path: None)])
def test_other_archives_are_refused(tmp_path, options, harm):
    path = write_archive(tmp_path / 'weights.pt', pickled(tensor((2, 3), (3, 1))), **options)
    harm(path)
    with pytest.raises(CheckpointError, match=r'weights\.pt'):
        read_torch(path)


def test_big_endian_files_are_refused(tmp_path):
    path = write_archive(tmp_path / 'weights.pt', pickled(tensor((2, 3), (3, 1))))
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'little', b'bigbig'))
    with pytest.raises(CheckpointError, match='big-endian'):
        read_torch(path)


@pytest.mark.parametrize('section', ['ema', 'state_dict', 'model'])
def test_weights_are_found_within_a_checkpoint(tmp_path, section):
    data = b'\x80\x02}' + text(section) + b'}' + text('w') + tensor((6,), (1,)) + b'ss.'
    weights = read_weights(write_archive(tmp_path / 'any.name', data))
    np.testing.assert_array_equal(weights['w'], np.arange(6))


@pytest.mark.parametrize(('data', 'said'), [(dumped({'epoch': 3}), 'epoch'), (dumped([1]), 'no weights'),
                                            (dumped({'ema': {}}), 'no weights')])
def test_files_without_weights_are_refused(tmp_path, data, said):
    with pytest.raises(CheckpointError, match=said):
        read_weights(write_archive(tmp_path / 'any.pt', data))


def test_files_of_other_kinds_are_told_apart(tmp_path):
    old, missing = tmp_path / 'old.pt', tmp_path / 'missing.pt'
    old.write_bytes(b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.')
    with pytest.raises(CheckpointError, match=r'before 1\.6'):
        read_weights(old)
    with pytest.raises(UserError, match='missing'):
        read_weights(missing)
