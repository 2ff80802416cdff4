"""The shipped quickstart, shrunk: train, kill, resume, sample, evaluate, as a user would."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    'data.train_examples': 96, 'data.test_examples': 16, 'tokens.shard_size': 64,
    'tokenizers.image.widths': '(16,)', 'tokenizers.image.blocks': 1, 'tokenizers.image.training.steps': 6,
    'tokenizers.image.training.batch_size': 8, 'tokenizers.audio.widths': '(16,)', 'tokenizers.audio.blocks': 1,
    'tokenizers.audio.quantizer.scalar_levels': '(5,5)', 'tokenizers.audio.training.steps': 6,
    'tokenizers.audio.training.batch_size': 8, 'diffusion.model.width': 32, 'diffusion.model.depth': 1,
    'diffusion.model.heads': 2, 'diffusion.training.steps': 30, 'diffusion.training.batch_size': 8,
    'diffusion.sampler.steps': 2, 'diffusion.sampler.batch_size': 8, 'evaluation.examples': 8,
    'checkpoints.every': 5, 'logging.every': 1, 'logging.samples_every': 1000,
    'evaluation.tasks': "('text->image','image->text','text->audio','audio->text')",
}


def _command(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / script), *arguments]


def _train(workdir: Path, **changes: object) -> list[str]:
    settings = [f'--config.{name}={value}' for name, value in (SMALL | changes).items()]
    return _command('train.py', f'--config={ROOT}/configs/quickstart.py', f'--workdir={workdir}', *settings)


def _run(command: list[str], expected: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=ROOT)
    assert done.returncode == expected, f'{done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}'
    return done


def _last_row(workdir: Path) -> dict:
    rows = (workdir / 'diffusion' / 'metrics.jsonl').read_text().splitlines()
    return json.loads(rows[-1])


def _final_record(workdir: Path) -> dict:
    """The fingerprints of the last checkpoint: equal records are equal bits."""
    content = json.loads((workdir / 'diffusion' / 'checkpoints' / '30' / '_CHECKPOINT_METADATA').read_text())
    return content['custom_metadata']['record']['trees']


@pytest.fixture(scope='module', autouse=True)
def compiled_once(tmp_path_factory):
    """The processes of this file share what XLA compiles, and have it compiled soon: it is most of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('JAX_COMPILATION_CACHE_DIR', str(tmp_path_factory.mktemp('compiled')))
        patch.setenv('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
        patch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
        yield


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    """A workdir trained without interruption."""
    workdir = tmp_path_factory.mktemp('runs') / 'whole'
    _run(_train(workdir))
    return workdir


def test_a_run_leaves_everything_to_look_at(trained):
    assert _last_row(trained)['step'] == 30
    for name in ('config.json', 'tokenizers/image/reconstructions.png', 'tokenizers/audio/health.json',
                 'tokens/train/manifest.json', 'report.json', 'report.md'):
        assert (trained / name).stat().st_size > 0, name
    assert len(list((trained / 'diffusion' / 'samples' / '0000030').glob('*.png'))) == 4


def test_the_report_measures_every_direction(trained):
    rows = json.loads((trained / 'report.json').read_text())
    assert {'task', 'metric', 'value', 'unit', 'count', 'ceiling'} <= set(rows[0])
    for task in ('text->image', 'image->text', 'text->audio', 'audio->text'):
        found = [row for row in rows if row['task'] == task]
        assert found and all(np.isfinite(row['value']) for row in found), task
    assert all(row['count'] <= 8 for row in rows
               if row['task'] in ('text->image', 'image->text') and not row['metric'].startswith('code entropy'))


@pytest.mark.parametrize('shared', [('tokenizers', 'tokens'), pytest.param((), marks=pytest.mark.slow)])
def test_killed_and_resumed_is_bitwise_the_uninterrupted_run(trained, tmp_path, shared):
    """From the tokenizers and tokens of that run, or all of it once more."""
    workdir = tmp_path / 'killed'
    for part in shared:
        shutil.copytree(trained / part, workdir / part)
    command = _train(workdir, **{'evaluation.tasks': "('text->image',)"})
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    metrics, deadline = workdir / 'diffusion' / 'metrics.jsonl', time.time() + 300
    while time.time() < deadline and process.poll() is None:
        if metrics.exists() and len(metrics.read_text().splitlines()) >= 8:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert metrics.exists() and _last_row(workdir)['step'] < 30, 'the run ended before it was killed'
    _run(command)
    assert _final_record(workdir) == _final_record(trained)
    steps = [json.loads(line)['step'] for line in metrics.read_text().splitlines()]
    assert steps == list(range(1, 31))


def test_samples_of_every_kind(trained, tmp_path):
    out = tmp_path / 'samples'
    _run(_command('sample.py', f'--workdir={trained}', '--given=text=a small red circle at the top left',
                  '--generate=image,audio', '--num=3', f'--out={out}'))
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['task'] == 'text->image,audio'
    with Image.open(out / 'image_0002.png') as picture:
        assert picture.size == (32, 32)
    assert len(list(out.glob('*.wav'))) == 3 and (out / 'grid.png').exists()
    caption = tmp_path / 'caption'
    _run(_command('sample.py', f'--workdir={trained}', f'--given=image={out}/image_0000.png', '--generate=text',
                  '--num=1', f'--out={caption}'))
    assert (caption / 'text_0000.txt').exists()


def test_a_word_that_the_model_does_not_know_is_told_in_a_line(trained, tmp_path):
    done = _run(_command('sample.py', f'--workdir={trained}', f'--out={tmp_path}/out',
                         '--given=text=a small purpel circle', '--generate=image'), expected=2)
    assert 'purpel' in done.stderr and 'Traceback' not in done.stderr and len(done.stderr.splitlines()) <= 6
    assert not (tmp_path / 'out').exists()


def test_another_config_is_refused_with_the_difference(trained):
    done = _run(_train(trained, **{'diffusion.model.depth': 2}), expected=2)
    assert 'diffusion.model.depth: 1 -> 2' in done.stderr and 'Traceback' not in done.stderr


def test_an_unknown_scorer_is_refused_before_anything_is_written(tmp_path):
    done = _run(_train(tmp_path / 'run', **{'evaluation.scorer': 'wrld'}), expected=2)
    assert 'Did you mean "world"' in done.stderr and not (tmp_path / 'run').exists()
