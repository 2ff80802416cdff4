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
    monkeypatch.setattr(host, '_accelerator_expected', lambda: True)
    monkeypatch.setenv('XDG_CACHE_HOME', '/caches')
    monkeypatch.setattr(type(jax.config), 'values', {'jax_compilation_cache_dir': '/elsewhere'})
    keep_compiled_programs()
    assert not said
    monkeypatch.setattr(type(jax.config), 'values', {'jax_compilation_cache_dir': None})
    keep_compiled_programs()
    assert said == {'jax_compilation_cache_dir': '/caches/vqdit/compiled'}


def test_compiled_programs_of_a_cpu_are_kept_as_long_as_the_process(tmp_path):
    code = ('from vqdit.training.host import keep_compiled_programs; keep_compiled_programs();'
            'import os, jax; folder = jax.config.jax_compilation_cache_dir; print(folder, os.path.isdir(folder))')
    environment = {'JAX_PLATFORMS': 'cpu', 'PATH': '/usr/bin:/bin', 'TMPDIR': str(tmp_path)}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, check=True)
    folder, was_there = done.stdout.split()
    assert folder.startswith(str(tmp_path)) and was_there == 'True'
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('said, flags', [
    ('', {'--xla_backend_optimization_level': '1'}),
    ('--xla_backend_optimization_level=3', {'--xla_backend_optimization_level': '3'}),
    ('--xla_cpu_parallel_codegen_split_count=4',
     {'--xla_cpu_parallel_codegen_split_count': '4', '--xla_backend_optimization_level': '1'})])
def test_a_cpu_compiles_with_less_optimisation_unless_told_otherwise(said, flags):
    """XLA ends a process that is told what it does not know: the device is asked for."""
    code = ('import os; from vqdit.training.host import prepare_host; prepare_host(1); import jax; jax.devices();'
            "print(os.environ['XLA_FLAGS'])")
    environment = {'JAX_PLATFORMS': 'cpu', 'PATH': '/usr/bin:/bin', 'XLA_FLAGS': said}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, check=True)
    found = dict(flag.split('=') for flag in done.stdout.split())
    found.pop('--xla_cpu_use_fusion_emitters', None)  # where XLA has it
    assert found == flags


def test_a_process_without_a_cluster_stays_alone():
    code = ('import jax; from vqdit.training.host import join_processes; join_processes(); '
            'print(jax.process_count(), jax.distributed.is_initialized())')
    environment = {'JAX_PLATFORMS': 'cpu', 'PATH': '/usr/bin:/bin'}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ['1', 'False']
