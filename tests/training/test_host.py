import subprocess
import sys

import jax
import pytest

from vqdit.training.host import prepare_host


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
