import os
import signal
import subprocess
import sys

import ml_collections
import pytest

from vqdit import files
from vqdit.errors import DiskError, UserError
from vqdit.training import workdir


def config() -> ml_collections.ConfigDict:
    data = {'root': '', 'image': {'size': 32, 'fit': 'crop'}, 'grid': (4, 4)}
    return ml_collections.ConfigDict({'seed': 0, 'rate': 3e-4, 'data': data, 'none': {}}).lock()


HOLDER = """
import sys, time
from vqdit.training.workdir import Lock
with Lock(sys.argv[1]):
    print('held', flush=True)
    time.sleep(600)
"""


def test_a_second_run_is_refused_by_name_until_the_first_is_killed(tmp_path):
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    command = [sys.executable, '-c', HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as holder:
        assert holder.stdout.readline() == 'held\n'
        for _ in range(2):
            with pytest.raises(UserError, match=f'in use by process {holder.pid} on .* since 20'):
                workdir.Lock(tmp_path).__enter__()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with workdir.Lock(tmp_path):
            assert files.read_json(tmp_path / 'LOCK')['pid'] == os.getpid()


def test_leaving_frees_the_lock(tmp_path):
    for _ in range(2):
        with workdir.Lock(tmp_path), pytest.raises(UserError, match=f'process {os.getpid()} '):
            workdir.Lock(tmp_path).__enter__()


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(DiskError, match=r'cannot lock .*file'):
        workdir.Lock(tmp_path / 'file').__enter__()


def test_config_comes_back_equal_and_locked(tmp_path):
    workdir.save_config(tmp_path, config())
    loaded = workdir.load_config(tmp_path)
    assert loaded.to_dict() == config().to_dict() and hash(loaded.data.grid)
    with pytest.raises(AttributeError):
        loaded.sed = 1


def test_the_same_config_is_welcome_and_another_is_shown(tmp_path):
    workdir.claim(tmp_path, config())
    workdir.claim(tmp_path, config())
    other = config().copy_and_resolve_references()
    with other.unlocked():
        other.data.image.size, other.data.grid, other.extra = 64, (4, 4, 4), {'a': 1}
        del other.seed
    with pytest.raises(UserError) as caught:
        workdir.claim(tmp_path, other)
    assert str(caught.value).splitlines() == [
        f'{tmp_path} was made with another config:',
        '  data.grid: [4, 4] -> [4, 4, 4]',
        '  data.image.size: 32 -> 64',
        '  extra.a: (absent) -> 1',
        '  seed: 0 -> (absent)',
        'drop these changes to go on with it, or choose another --workdir to begin anew',
    ]
    assert workdir.load_config(tmp_path).to_dict() == config().to_dict()


def test_what_changes_nothing_that_is_learned_may_change_and_is_saved(tmp_path):
    sections = ('mesh', 'logging', 'checkpoints', 'reliability', 'evaluation')
    workdir.claim(tmp_path, {'seed': 0} | {name: {'number': 1, 'more': {}} for name in sections})
    changed = {'seed': 0} | {name: {'number': 2, 'more': {'key': 1}} for name in sections}
    workdir.claim(tmp_path, changed)
    assert workdir.load_config(tmp_path).to_dict() == changed
    with pytest.raises(UserError) as caught:
        workdir.claim(tmp_path, changed | {'seed': 1, 'mesh': {'number': 3}})
    assert '  seed: 0 -> 1\n' in str(caught.value) and 'mesh' not in str(caught.value)
    assert workdir.load_config(tmp_path).to_dict() == changed


def test_many_differences_are_cut_short(tmp_path):
    workdir.claim(tmp_path, {'a': dict.fromkeys('abcdefghijklmnopqrst', 0)})
    with pytest.raises(UserError, match='and 8 more'):
        workdir.claim(tmp_path, {'a': dict.fromkeys('abcdefghijklmnopqrst', 1)})


@pytest.mark.parametrize(
    'content', [{'format': 0, 'version': '0.1', 'config': {}}, {'seed': 0}, [], {'format': 1}]
)
def test_other_formats_are_refused_and_kept(tmp_path, content):
    files.write_json(tmp_path / 'config.json', content)
    for action in (workdir.load_config, lambda path: workdir.claim(path, config())):
        with pytest.raises(UserError, match=r'has format .* another --workdir'):
            action(tmp_path)
    assert files.read_json(tmp_path / 'config.json') == content


def test_a_workdir_without_config_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'config.json is missing'):
        workdir.load_config(tmp_path)
