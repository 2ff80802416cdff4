import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import types

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from vqdit.errors import CheckpointError, DiskError, NonFiniteError
from vqdit.training import checkpoint_reader
from vqdit.training.checkpoint_reader import CheckpointReader
from vqdit.training.checkpoints import Checkpoints


def trees_at(step: int) -> dict:
    key = jax.random.key(step)
    params = {'dense': {'kernel': jax.random.normal(key, (40, 30)), 'bias': jnp.full(3, step, jnp.bfloat16)}}
    return {'state': {'params': params, 'step': jnp.int32(step)}, 'frozen': {'codes': jnp.arange(7) + step}}


def abstract(trees: dict, sharding: jax.sharding.Sharding | None = None) -> dict:
    def leaf(array: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding or array.sharding)

    return jax.tree.map(leaf, trees)


def same(one: dict, two: dict) -> bool:
    return jax.tree.structure(one) == jax.tree.structure(two) and all(
        a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two))
    )


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """Three good checkpoints: 1, 2, 3; not to be touched."""
    with Checkpoints(tmp_path_factory.mktemp('saved') / 'checkpoints', keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, trees_at(step), metadata={'step': step})
    return checkpoints.folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of them to do harm to."""
    return shutil.copytree(saved, tmp_path / 'checkpoints')


def test_round_trip_is_exact_and_keeps_metadata(folder):
    restored = CheckpointReader(folder).restore(abstract(trees_at(0)))
    assert restored.step == 3 and restored.metadata == {'step': 3} and same(restored.trees, trees_at(3))


def test_step_and_subset_can_be_chosen(folder):
    wanted = {'frozen': abstract(trees_at(0))['frozen']}
    step, trees, _ = CheckpointReader(folder).restore(wanted, step=2)
    assert step == 2 and same(trees, {'frozen': trees_at(2)['frozen']})


def test_dataclasses_optimizer_states_and_empty_nodes_come_back(tmp_path):
    @flax.struct.dataclass
    class State:
        params: dict
        optimizer: tuple
        extra: dict

    params = {'w': jnp.arange(6.0).reshape(2, 3)}
    state = State(params, optax.adamw(1e-3).init(params), {})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {'state': state, 'nothing': {}, 'single': jnp.ones(2)}, wait=True)
        restored = checkpoints.restore(abstract({'state': state, 'nothing': {}, 'single': jnp.ones(2)}))
    assert isinstance(restored.trees['state'], State) and restored.trees['nothing'] == {}
    assert same(restored.trees, {'state': state, 'nothing': {}, 'single': jnp.ones(2)})


def test_an_empty_or_missing_folder_restores_none(tmp_path):
    assert CheckpointReader(tmp_path / 'none').restore(abstract(trees_at(0))) is None
    assert CheckpointReader(tmp_path / 'none').latest_step is None


def test_arrays_may_be_donated_once_save_returns(tmp_path):
    double = jax.jit(lambda tree: jax.tree.map(lambda x: x * 2, tree), donate_argnums=0)
    state = {'w': jax.random.normal(jax.random.key(0), (1 << 20,))}
    before = {'state': jax.tree.map(np.array, state)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {'state': state})
        for _ in range(5):
            state = double(state)
        jax.block_until_ready(state)
        checkpoints.wait()
        assert same(checkpoints.restore(abstract({'state': state})).trees, before)


def test_newest_and_best_are_kept_and_best_is_restored(tmp_path):
    losses = [5.0, 1.0, float('nan'), 4.0, 3.0, 2.0]
    with Checkpoints(tmp_path, keep=2, best_metric='loss') as checkpoints:
        for step, loss in enumerate(losses):
            checkpoints.save(step, trees_at(step), metrics={'loss': loss})
        checkpoints.save(6, trees_at(6), wait=True)
        assert checkpoints.steps == [1, 5, 6] and checkpoints.metrics(5) == {'loss': 2.0}
    reader = CheckpointReader(tmp_path, best_metric='loss')
    assert reader.restore_best(abstract(trees_at(0))).step == 1
    shutil.rmtree(tmp_path / '1' / 'state')
    assert CheckpointReader(tmp_path, best_metric='loss').restore_best(abstract(trees_at(0))).step == 5


def test_what_would_not_come_back_is_refused_by_name(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for leaf, words in ((np.ones(2), 'float64'), (jnp.ones((0, 3)), 'without elements'), (1.0, 'float')):
            with pytest.raises(TypeError, match=f'leaf.* {words}'):
                checkpoints.save(1, {'state': {'leaf': leaf}})
        checkpoints.save(1, {'state': np.arange(3, dtype=np.int8)}, wait=True)
        wanted = jax.ShapeDtypeStruct((3,), jnp.int8, sharding=SingleDeviceSharding(jax.devices()[0]))
        assert checkpoints.restore({'state': wanted}).trees['state'].tolist() == [0, 1, 2]


def test_a_folder_removed_while_training_is_told(folder):
    with Checkpoints(folder) as checkpoints:
        shutil.rmtree(folder)
        with pytest.raises(DiskError, match='cannot write the checkpoint of step 4'):
            checkpoints.save(4, trees_at(4))


def test_saving_a_step_twice_changes_nothing(folder):
    with Checkpoints(folder, keep=3) as checkpoints:
        checkpoints.save(3, trees_at(9), wait=True)
        assert same(checkpoints.restore(abstract(trees_at(0))).trees, trees_at(3))


def test_any_topology_restores(tmp_path):
    def placed(count: int) -> NamedSharding:
        mesh = jax.make_mesh((count,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])
        return NamedSharding(mesh, PartitionSpec('data'))

    values = {'state': {'w': jax.random.normal(jax.random.key(0), (16, 5)), 'v': jnp.arange(8)}}
    trees, step = jax.device_put(values, placed(8)), 0
    with Checkpoints(tmp_path) as checkpoints:
        for count in (1, 2, 8):
            checkpoints.save(step, trees, wait=True)
            trees = checkpoints.restore(abstract(values, placed(count)), step).trees
            step += 1
            assert len(trees['state']['w'].sharding.device_set) == count and same(trees, values)


@pytest.mark.parametrize(
    'change, words',
    [
        (
            lambda state: state['params']['dense'].update(kernel=jnp.zeros((30, 40))),
            'kernel is float32.40, 30.',
        ),
        (lambda state: state['params']['dense'].update(bias=jnp.zeros(3)), 'dense/bias is bfloat16'),
        (lambda state: state['params'].update(more=jnp.zeros(3)), 'params/more is absent'),
        (lambda state: state['params']['dense'].pop('bias'), 'dense/bias .* has none'),
    ],
)
def test_other_shape_dtype_or_structure_is_refused_by_name(folder, change, words, caplog):
    trees = trees_at(0)
    change(trees['state'])
    with pytest.raises(CheckpointError, match=words):
        CheckpointReader(folder).restore(abstract(trees))
    assert not caplog.records


def test_unknown_tree_and_step_are_refused(folder):
    reader = CheckpointReader(folder)
    with pytest.raises(CheckpointError, match='no ema, only state, frozen'):
        reader.restore({'ema': abstract(trees_at(0))['state']})
    with pytest.raises(CheckpointError, match='no checkpoint of step 7'):
        reader.restore(abstract(trees_at(0)), step=7)


def test_a_leaf_without_sharding_goes_to_the_first_device(folder):
    wanted = {'frozen': {'codes': jax.ShapeDtypeStruct((7,), jnp.int32)}}
    codes = CheckpointReader(folder).restore(wanted).trees['frozen']['codes']
    assert codes.devices() == {jax.devices()[0]} and codes.tolist() == [3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_non_finite_value_is_never_written(tmp_path, value):
    trees = trees_at(2)
    trees['state']['params']['dense']['bias'] = jnp.array([1, value, 1], jnp.bfloat16)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, trees_at(1))
        with pytest.raises(NonFiniteError, match='state/params/dense/bias is not finite at step 2'):
            checkpoints.save(2, trees)
        assert checkpoints.steps == [1]


def flip(path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)


def files_of(folder) -> list:
    return sorted(path for path in folder.rglob('*') if path.is_file() and path.stat().st_size)


def assert_refused_or_identical(folder, caplog) -> bool:
    """Restores: either step 3 exactly as saved, or step 2 with one warning that names step 3."""
    caplog.clear()
    restored = CheckpointReader(folder).restore(abstract(trees_at(0)))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith('vqdit')]
    assert restored.metadata == {'step': restored.step} and same(restored.trees, trees_at(restored.step))
    assert (restored.step, len(ours)) in ((3, 0), (2, 1))
    assert all('step 3 is damaged' in line for line in ours)
    return restored.step == 2


@pytest.mark.parametrize('count', [4, pytest.param(300, marks=pytest.mark.slow)])
def test_flipped_bits_are_refused_or_harmless(folder, tmp_path, caplog, count):
    generator, refused = random.Random(count), 0
    shutil.copytree(folder / '3', tmp_path / 'copy')
    for trial in range(count):
        files = files_of(folder / '3')
        path = files[trial % len(files)]
        flip(path, generator.randrange(8 * path.stat().st_size))
        refused += assert_refused_or_identical(folder, caplog)
        shutil.rmtree(folder / '3')
        shutil.copytree(tmp_path / 'copy', folder / '3')
    assert refused > count / 4


def test_every_flip_in_the_array_data_is_refused(folder, caplog):
    path = max(files_of(folder / '3'), key=lambda path: path.stat().st_size)
    flip(path, 4 * path.stat().st_size)
    assert assert_refused_or_identical(folder, caplog)


@pytest.mark.parametrize('every', [5, pytest.param(1, marks=pytest.mark.slow)])
def test_truncated_files_are_refused_or_harmless(folder, tmp_path, caplog, every):
    shutil.copytree(folder / '3', tmp_path / 'copy')
    for number, name in enumerate(path.relative_to(folder / '3') for path in files_of(folder / '3')[::every]):
        os.truncate(folder / '3' / name, (folder / '3' / name).stat().st_size // 2 * (number % 2))
        refused = assert_refused_or_identical(folder, caplog)
        assert refused or (tmp_path / 'copy' / name).stat().st_size < 10_000
        shutil.rmtree(folder / '3')
        shutil.copytree(tmp_path / 'copy', folder / '3')


def test_a_step_saved_behind_newer_ones_is_kept(folder):
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(0, trees_at(0), wait=True)
        assert checkpoints.steps == [0, 2, 3]


def test_a_vanished_newest_or_half_deleted_oldest_is_no_obstacle(folder):
    shutil.rmtree(folder / '3')
    shutil.rmtree(folder / '1' / 'state')
    with Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.restore(abstract(trees_at(0))).step == 2
        checkpoints.save(3, trees_at(3), wait=True)
        assert checkpoints.steps == [2, 3]


def test_a_damaged_step_is_replaced_when_training_comes_by_again(folder):
    (folder / '3' / '_CHECKPOINT_METADATA').write_text('{')
    with Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.restore(abstract(trees_at(0))).step == 2
        checkpoints.save(3, trees_at(8), wait=True)
        assert checkpoints.steps == [2, 3]
        assert same(checkpoints.restore(abstract(trees_at(0))).trees, trees_at(8))


def test_a_damaged_newer_step_goes_once_a_good_one_is_saved(folder):
    shutil.rmtree(folder / '3' / 'frozen')
    with Checkpoints(folder, keep=2) as checkpoints:
        restored = checkpoints.restore(abstract(trees_at(0)))
        checkpoints.save(restored.step + 10, trees_at(12), wait=True)
    assert CheckpointReader(folder).steps == [2, 12]


def test_a_checkpoint_under_another_step_is_refused(folder):
    shutil.rmtree(folder / '3')
    shutil.copytree(folder / '1', folder / '3')
    assert CheckpointReader(folder).restore(abstract(trees_at(0))).step == 2


def test_none_whole_is_an_error_that_names_all(folder):
    for step in (1, 2, 3):
        shutil.rmtree(folder / str(step) / 'state')
    with pytest.raises(CheckpointError, match=r'no whole checkpoint .*step 3.*step 2.*step 1') as caught:
        CheckpointReader(folder).restore(abstract(trees_at(0)))
    assert caught.value.exit_code == 4 and '\n' not in str(caught.value)


def test_leftovers_and_strangers_do_no_harm(folder):
    for name in ('4.orbax-checkpoint-tmp', '2.deleted', '7 (copy)', '-5'):
        (folder / name).mkdir()
        (folder / name / 'x').write_text('x')
    (folder / '9').write_text('no checkpoint')
    assert CheckpointReader(folder).steps == [1, 2, 3] and (folder / '4.orbax-checkpoint-tmp').exists()
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(4, trees_at(4), wait=True)
    assert sorted(path.name for path in folder.iterdir()) == ['-5', '3', '4', '7 (copy)', '9']


def test_too_little_space_is_refused_before_writing(folder, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=5_000))
    with Checkpoints(folder) as checkpoints, pytest.raises(DiskError, match=r'0 MB free.*complete one is 3'):
        checkpoints.save(4, trees_at(4))
    assert sorted(path.name for path in folder.iterdir()) == ['1', '2', '3']


def test_a_save_that_fails_late_is_told_once_and_the_next_one_works(folder, caplog):
    large = {'state': {'w': jax.random.normal(jax.random.key(0), (1 << 19,))}}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(folder) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
        try:
            checkpoints.save(4, large)
            with pytest.raises(DiskError, match=r'step 4 .*complete one is 3') as caught:
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert caught.value.exit_code == 6 and '\n' not in str(caught.value)
        assert sorted(path.name for path in folder.iterdir()) == ['1', '2', '3']
        checkpoints.save(5, large, wait=True)
        assert checkpoints.steps == [3, 5] and same(checkpoints.restore(abstract(large)).trees, large)
    assert not [record for record in caplog.records if record.exc_info]


def test_a_late_failure_is_raised_at_the_end_of_the_with(folder):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(DiskError, match='step 4'), Checkpoints(folder) as checkpoints:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, limit[1]))
            checkpoints.save(4, {'state': {'w': jax.random.normal(jax.random.key(0), (1 << 17,))}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


SAVER = """
import os, sys
import jax, jax.numpy as jnp
from vqdit.training.checkpoints import Checkpoints
for line in sys.stdin:
    if os.fork() == 0:
        with Checkpoints(line.strip(), keep=2) as checkpoints:
            step = (checkpoints.latest_step or 0) + 1
            print('pid', os.getpid(), flush=True)
            while True:
                arrays = {f'w{i}': jnp.full(100_000, step + i, jnp.float32) for i in range(8)}
                checkpoints.save(step, {'state': arrays})
                print('committed', step - 1, flush=True)
                step += 1
    os.wait()
    print('killed', flush=True)
"""


@pytest.mark.parametrize('trials', [2, pytest.param(100, marks=pytest.mark.slow)])
def test_kill_9_always_leaves_the_newest_checkpoint_whole(tmp_path, trials, caplog):
    generator = random.Random(trials)
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    command = [sys.executable, '-W', 'ignore', '-c', SAVER]
    wanted = {f'w{i}': jax.ShapeDtypeStruct((100_000,), jnp.float32) for i in range(8)}
    wanted = abstract({'state': wanted}, SingleDeviceSharding(jax.devices()[0]))
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    with subprocess.Popen(command, env=environment, **pipes) as saver:
        for _ in range(trials):
            print(tmp_path, file=saver.stdin, flush=True)
            pid = int(saver.stdout.readline().split()[1])
            lines = [saver.stdout.readline() for _ in range(2)]
            time.sleep(generator.uniform(0, 0.4))
            os.kill(pid, signal.SIGKILL)
            lines += iter(saver.stdout.readline, 'killed\n')
            restored = CheckpointReader(tmp_path).restore(wanted)
            assert restored.step >= int(lines[-1].split()[1])
            assert all(bool((restored.trees['state'][f'w{i}'] == restored.step + i).all()) for i in range(8))
        saver.stdin.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_another_process_failed_to_load_is_not_verified(saved, monkeypatch):
    """Verification gathers from all processes, and that one would not take part."""
    monkeypatch.setattr(checkpoint_reader, 'any_process', lambda failed: (True,))
    monkeypatch.setattr(checkpoint_reader.checkpoint_record, 'verify', lambda *_: pytest.fail('verified'))
    with pytest.raises(CheckpointError, match=r'step 3 is damaged \(seen by another process\)'):
        CheckpointReader(saved).restore(abstract(trees_at(0)), step=3)
