import json
import resource
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import vqdit.data.token_store as token_store
from vqdit.data.batches import Batches
from vqdit.data.token_store import TokenStore, write_store
from vqdit.errors import DataError, DiskError, Preempted, UserError
from vqdit.tokenizers.spec import TokenLayout, TokenSpec

COUNT = 23
LAYOUT = TokenLayout({'image': TokenSpec((2, 2), 512), 'text': TokenSpec((3,), 40)})
FINGERPRINTS = {'image': 'aaaa', 'text': 'bbbb'}


class Numbers:
    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return {'image': np.full(4, index), 'label': -index}


def codes_of(labels):
    return (np.asarray(labels)[:, None] * 31 + np.arange(7) * 7) % 40


def encode(batch):
    assert batch['image'].shape == (4, 4)
    return codes_of(-batch['label'])


def write(folder, split='train', **changed):
    options = {
        'layout': LAYOUT,
        'fingerprints': FINGERPRINTS,
        'metadata': ('label',),
        'shard_size': 10,
        'batch_size': 4,
        'encode': encode,
        'dataset': Numbers(),
    } | changed
    write_store(folder, split, **options)
    return folder / split


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def store(tmp_path):
    return write(tmp_path)


def test_codes_and_metadata_come_back(store):
    tokens = TokenStore(store.parent, 'train', LAYOUT, FINGERPRINTS)
    assert len(tokens) == COUNT
    assert tokens.manifest.layout == LAYOUT
    for index in (0, 9, 10, 22, -1):
        example = tokens[index]
        assert example.keys() == {'codes', 'label'}
        assert example['codes'].dtype == np.int32
        assert example['label'] == -(index % COUNT)
        np.testing.assert_array_equal(example['codes'], codes_of([index % COUNT])[0])
    np.testing.assert_array_equal(tokens.column('label'), -np.arange(COUNT))
    assert tokens.column('label').base is None, 'a view keeps the codes of all examples in memory'


def test_indices_outside_are_refused(store):
    tokens = TokenStore(store.parent, 'train')
    for index in (COUNT, -COUNT - 1):
        with pytest.raises(IndexError):
            tokens[index]
    with pytest.raises(UserError, match='no "speaker"'):
        tokens.column('speaker')


def test_the_folder_holds_whole_shards_and_nothing_else(store):
    names = [f'{shard:05d}.{kind}' for shard in range(3) for kind in ('array_record', 'json')]
    assert sorted(content(store)) == sorted([*names, 'manifest.json'])
    assert json.loads((store / '00002.json').read_text())['examples'] == [20, 23]


def test_large_stores_are_read_from_the_disc_alike(store, monkeypatch):
    kept = TokenStore(store.parent, 'train')
    monkeypatch.setattr(token_store, 'KEPT_IN_MEMORY', 0)
    read = TokenStore(store.parent, 'train')
    assert not isinstance(read._rows, np.ndarray)
    with ThreadPoolExecutor(4) as pool:
        examples = list(pool.map(read.__getitem__, range(COUNT)))
    for index, example in enumerate(examples):
        np.testing.assert_array_equal(example['codes'], kept[index]['codes'])
        assert example['label'] == kept[index]['label']
    np.testing.assert_array_equal(read.column('label'), kept.column('label'))


def test_batches_of_a_store(store):
    batch = Batches(TokenStore(store.parent, 'train'), 8, seed=0).at(0)
    assert batch['codes'].dtype == np.int32
    np.testing.assert_array_equal(batch['codes'], codes_of(-batch['label']))


@pytest.mark.parametrize('num_codes, width', [(65535, 2), (65536, 4), (2**18, 4)])
def test_codes_take_two_bytes_unless_they_or_the_mask_need_four(tmp_path, num_codes, width):
    layout = TokenLayout({'image': TokenSpec((7,), num_codes)})
    write(tmp_path, layout=layout, encode=lambda batch: np.full((4, 7), num_codes - 1), metadata=())
    tokens = TokenStore(tmp_path, 'train')
    assert tokens.manifest.dtype.itemsize == 7 * width
    assert tokens[3]['codes'].tolist() == [num_codes - 1] * 7


class Stop:
    """Asks to stop once `after` examples are done."""

    def __init__(self, after):
        self.left = after

    def __call__(self, examples):
        self.left -= examples
        if self.left <= 0:
            raise Preempted('stopped')


@pytest.mark.parametrize('after', [1, 10, 12, 23])
def test_an_interrupted_store_goes_on_and_ends_the_same(store, tmp_path, after):
    other = tmp_path / 'other'
    with pytest.raises(Preempted):
        write(other, progress=Stop(after))
    assert not list((other / 'train').glob('.*'))
    with pytest.raises(DataError, match='not finished'):
        TokenStore(other, 'train')
    done = []
    write(other, progress=done.append)
    assert sum(done) == COUNT
    assert content(other / 'train') == content(store)


def test_finished_shards_are_not_written_again(store):
    before = {path: path.stat().st_mtime_ns for path in store.iterdir()}
    write(store.parent, encode=None, dataset=Numbers(), shard_size=4)
    assert {path: path.stat().st_mtime_ns for path in store.iterdir()} == before


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
import test_token_store as t
calls = []
def encode(batch):
    calls.append(batch)
    if len(calls) == 5:
        print('in the second shard', flush=True)
        time.sleep(100)
    return t.encode(batch)
t.write(Path(sys.argv[2]), encode=encode)
"""


def test_a_killed_store_goes_on_and_ends_the_same(store, tmp_path):
    killed = tmp_path / 'killed' / 'train'
    command = [sys.executable, '-c', KILLED, str(Path(__file__).parent), str(killed.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b'in the second shard\n'
        process.send_signal(signal.SIGKILL)
    assert set(content(killed)) == {
        'manifest.json',
        '00000.array_record',
        '00000.json',
        '.00001.array_record.part',
    }
    write(killed.parent)
    assert content(killed) == content(store)


def test_processes_write_the_shards_between_them(store, tmp_path):
    shared = tmp_path / 'shared'
    for index in range(2):
        write(shared, process_index=index, process_count=2)
    assert content(shared / 'train') == content(store)


@pytest.mark.parametrize(
    'changed, named',
    [
        (
            {'fingerprints': FINGERPRINTS | {'image': 'cccc'}},
            r'fingerprints \(image\): aaaa, but cccc',
        ),
        ({'fingerprints': {'image': 'aaaa'}}, r'fingerprints \(text\): bbbb, but None'),
        ({'layout': TokenLayout(dict(reversed(LAYOUT.specs.items())))}, 'layout'),
        ({'metadata': ()}, r"metadata: \['label'\], but \[\]"),
        ({'dataset': np.zeros(22)}, 'count: 23, but 22'),
    ],
)
def test_a_store_of_something_else_is_refused_and_kept(store, changed, named):
    before = content(store)
    with pytest.raises(UserError, match=named + '.*delete the folder'):
        write(store.parent, **changed)
    assert content(store) == before
    if 'layout' in changed or 'fingerprints' in changed:
        with pytest.raises(UserError, match=named):
            TokenStore(store.parent, 'train', **changed)


def swap(store):
    for kind in ('json', 'array_record'):
        one, other = store / f'00000.{kind}', store / f'00001.{kind}'
        one.rename(store / 'aside')
        other.rename(one)
        (store / 'aside').rename(other)


def flip(store):
    path = store / '00001.array_record'
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)


def truncate(store):
    path = store / '00001.array_record'
    path.write_bytes(path.read_bytes()[:-1])


def borrow(store):
    """A whole shard of a store that other tokenizers made."""
    other = write(store.parent / 'other', fingerprints=FINGERPRINTS | {'image': 'cccc'})
    for kind in ('json', 'array_record'):
        shutil.copy(other / f'00001.{kind}', store)


def test_damage_is_refused(store):
    faults = [
        (flip, 'damaged'),
        (truncate, 'damaged'),
        (swap, 'damaged'),
        (borrow, 'damaged'),
        (lambda s: (s / '00002.array_record').unlink(), 'missing'),
        (lambda s: (s / '00002.json').unlink(), 'not finished'),
        (lambda s: (s / '00002.json').write_text('{'), 'not valid JSON'),
        (lambda s: (s / 'manifest.json').unlink(), 'no token store'),
        (lambda s: (s / 'manifest.json').write_text('{"format": 1}'), 'damaged'),
        (lambda s: (s / 'manifest.json').write_text('{"format": 0}'), 'format 0'),
    ]
    for number, (fault, message) in enumerate(faults):
        copy = store.parent / str(number) / 'train'
        shutil.copytree(store, copy)
        fault(copy)
        with pytest.raises(DataError, match=message):
            TokenStore(copy.parent, 'train')


def test_shards_left_without_a_manifest_are_not_taken_for_new_ones(store):
    (store / 'manifest.json').unlink()
    write(
        store.parent,
        fingerprints={'image': 'new', 'text': 'new'},
        encode=lambda batch: np.zeros((4, 7), int),
    )
    assert not TokenStore(store.parent, 'train')[5]['codes'].any()


def test_codes_outside_of_the_layout_are_refused(tmp_path):
    for code, message in ((40, r'text are in \[40, 40\]'), (-1, r'image are in \[-1, -1\]')):
        with pytest.raises(DataError, match=message):
            write(tmp_path, encode=lambda batch, code=code: np.full((4, 7), code))
    with pytest.raises(DataError, match='shape'):
        write(tmp_path, encode=lambda batch: np.zeros((4, 6), int))
    assert list(content(tmp_path / 'train')) == ['manifest.json']


def test_a_fault_of_the_encoder_is_not_taken_for_a_full_disc(tmp_path):
    def broken(batch):
        raise RuntimeError('device is lost')

    with pytest.raises(RuntimeError, match='device is lost'):
        write(tmp_path, encode=broken)


def test_a_full_disc_is_named_and_leaves_nothing_behind(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    layout = TokenLayout({'image': TokenSpec((20000,), 512)})
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(DiskError, match=r'cannot write .*00000\.array_record'):
            write(tmp_path, layout=layout, encode=lambda batch: np.zeros((4, 20000), int))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(content(tmp_path / 'train')) == ['manifest.json']


def test_shard_size_must_be_positive(tmp_path):
    with pytest.raises(UserError, match='shard_size=0'):
        write(tmp_path, shard_size=0)
