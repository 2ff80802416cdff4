import subprocess
import sys

import jax
import pytest

from vqdit.training import host
from vqdit.training.host import keep_compiled_programs, prepare_host


def _prepared(environment: dict[str, str], count: int) -> str:
    code = (f'from vqdit.training.host import prepare_host, device_line; print(prepare_host({count}));'
            'import jax; print(device_line(), jax.device_count())')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, check=True)
    return done.stdout


@pytest.mark.parametrize('count', [1, 3])
def test_a_cpu_gets_the_virtual_devices_asked_for(count):
    said = _prepared({'JAX_PLATFORMS': 'cpu', 'PATH': '/usr/bin:/bin'}, count)
    assert f'CPU: {count} virtual device' in said and 'freed memory kept' in said
    assert f'{count} CPU device' in said


def test_a_running_jax_is_left_as_it_is():
    before = jax.device_count()
    assert 'JAX runs already' in prepare_host(cpu_devices=before + 1)
    assert jax.device_count() == before


def test_compiled_programs_are_kept_for_accelerators_where_nothing_else_is_said(monkeypatch):
    said = {}
    monkeypatch.setattr(jax.config, 'update', said.__setitem__)
    monkeypatch.setenv('XDG_CACHE_HOME', '/caches')
    keep_compiled_programs()
    assert not said  # The tests run on a CPU.
    monkeypatch.setattr(host, '_accelerator_expected', lambda: True)
    keep_compiled_programs()
    assert said == {'jax_compilation_cache_dir': '/caches/vqdit/compiled'}


def test_a_process_without_a_cluster_stays_alone():
    code = ('import jax; from vqdit.training.host import join_processes; join_processes(); '
            'print(jax.process_count(), jax.distributed.is_initialized())')
    environment = {'JAX_PLATFORMS': 'cpu', 'PATH': '/usr/bin:/bin'}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ['1', 'False']
