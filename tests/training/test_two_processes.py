"""A run of two processes, found as SLURM would have started them: tokens, training, a stop, and one process goes on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = 200
CONFIG = f"""
from ml_collections import ConfigDict
from vqdit.training.defaults import defaults, text_tokenizer

def get_config():
    config = defaults()
    config.data = ConfigDict({{'source': 'world', 'train_examples': 64, 'test_examples': 8}})
    config.tokenizers = ConfigDict({{'text': text_tokenizer('bytes', 8)}})
    config.tokens.shard_size = 16
    config.diffusion.tasks = ConfigDict({{'->text': 1.0}})
    config.diffusion.model.update(width=16, depth=1, heads=2)
    config.diffusion.training.update(steps={STEPS}, batch_size=8)
    config.mesh.update(data=-1, fsdp=2)
    config.checkpoints.every = 2
    config.logging.every = 1
    config.logging.samples_every = 10 * {STEPS}
    return config
"""
ALONE = """
import sys
from vqdit.config_file import load_config
from vqdit.training.host import prepare_host
from vqdit.training.pipeline import train
prepare_host(4)
train(load_config(sys.argv[1]), sys.argv[2])
"""


def _start(config: Path, workdir: Path, index: int, port: int) -> subprocess.Popen:
    environment = {
        **os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_COORDINATOR_PORT': str(port), 'SLURM_JOB_ID': '1',
        'SLURM_STEP_NODELIST': 'localhost', 'SLURM_NTASKS': '2', 'SLURM_PROCID': str(index),
        'SLURM_LOCALID': str(index), 'JAX_LOCAL_DEVICE_IDS': '0,1',
    }
    command = [sys.executable, '-W', 'ignore', str(ROOT / 'train.py'), f'--config={config}', f'--workdir={workdir}',
               '--cpu_devices=2']
    return subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def _steps(workdir: Path) -> list[int]:
    metrics = workdir / 'diffusion' / 'metrics.jsonl'
    return [json.loads(line)['step'] for line in metrics.read_text().splitlines()] if metrics.exists() else []


@pytest.mark.slow
def test_two_processes_train_stop_together_and_one_goes_on(tmp_path):
    config, workdir = tmp_path / 'config.py', tmp_path / 'run'
    config.write_text(CONFIG)
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    members = [_start(config, workdir, index, port) for index in range(2)]
    try:
        deadline = time.time() + 900
        while time.time() < deadline and not len(_steps(workdir)) > 4 and members[0].poll() is None:
            time.sleep(0.1)
        # A request to the second process stops both.
        members[1].send_signal(signal.SIGTERM)
        said = [member.communicate(timeout=600)[1] for member in members]
    finally:
        for member in members:
            member.kill()
            member.wait()
    assert [member.returncode for member in members] == [75, 75], said
    assert '4 CPU devices (cpu) over 2 processes' in said[0] and 'diffusion 1/' in said[0]
    assert 'diffusion 1/' not in said[1]  # The first process alone reports.
    assert len(list((workdir / 'tokens' / 'train').glob('*.array_record'))) == 4
    stopped_at = _steps(workdir)[-1]
    assert 4 < stopped_at < STEPS
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}
    subprocess.run([sys.executable, '-W', 'ignore', '-c', ALONE, config, workdir], env=environment, check=True)
    assert _steps(workdir) == list(range(1, STEPS + 1))
