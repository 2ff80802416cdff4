"""The launch recipes are shell and YAML that parse, and name what exists."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / 'launch').iterdir())


@pytest.mark.parametrize('path', [path for path in RECIPES if path.suffix == '.sh'], ids=lambda path: path.name)
def test_shell_parses_and_runs_from_the_first_line(path):
    subprocess.run(['bash', '-n', path], check=True)
    assert path.read_text().startswith('#!/bin/bash\n') and path.stat().st_mode & 0o100
    # Without arguments each says how it is used, before it does anything.
    done = subprocess.run([shutil.which('bash'), path], capture_output=True, text=True, env={'PATH': '/nowhere'})
    assert done.returncode and 'usage: ' in done.stderr


SRUN = """#!/bin/bash
# Two tasks; when one ends badly the other is killed, and srun ends as the worst of them did.
while [[ $1 == --* ]]; do shift; done
"$@" && "$@" || exit 137
"""


@pytest.mark.parametrize(('ends', 'code', 'requeued'), [(0, 0, ''), (75, 75, 'requeue 7'), (3, 137, '')])
def test_a_job_that_was_asked_to_stop_is_queued_again_and_no_other(tmp_path, ends, code, requeued):
    scripts = {'srun': SRUN, 'scontrol': f'#!/bin/bash\necho "$@" > {tmp_path}/told\n',
               'python': f'#!/bin/bash\nexit {ends}\n'}
    for name, script in scripts.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    environment = {'PATH': f'{tmp_path}:/usr/bin:/bin', 'SLURM_JOB_ID': '7', 'PYTHON': 'python'}
    done = subprocess.run([ROOT / 'launch' / 'slurm.sh', 'config.py', tmp_path], env=environment)
    told = tmp_path / 'told'
    assert (done.returncode, told.read_text().strip() if told.exists() else '') == (code, requeued)
    assert not list(tmp_path.glob('stopped-*'))


def test_the_manifest_is_a_job_set_of_as_many_hosts_as_its_slice_has():
    yaml = pytest.importorskip('yaml')
    manifest = yaml.safe_load((ROOT / 'launch' / 'gke.yaml').read_text())
    assert manifest['kind'] == 'JobSet'
    job = manifest['spec']['replicatedJobs'][0]['template']['spec']
    pod = job['template']['spec']
    rows, columns = map(int, pod['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x'))
    chips = pod['containers'][0]['resources']['limits']['google.com/tpu']
    assert job['parallelism'] == job['completions'] == rows * columns // chips
    assert {mount['name'] for mount in pod['containers'][0]['volumeMounts']} == {v['name'] for v in pod['volumes']}


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.name)
def test_scripts_configs_and_flags_exist(path):
    text = path.read_text()
    assert 'train.py' in text
    for config in re.findall(r'configs/\w+\.py', text):
        assert (ROOT / config).exists(), config
    flags = set(re.findall(r'DEFINE_\w+\(\s*\'(\w+)\'', (ROOT / 'train.py').read_text())) | {'config'}
    for line in text.splitlines():
        called = line.split('train.py')[-1] if 'train.py' in line else line if '- --' in line else ''
        for flag in re.findall(r'--(\w+)=', called):
            assert flag in flags, flag
