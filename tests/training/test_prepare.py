"""Which steps are compiled beside what is trained, and that they fit."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from small_world import small_world

from vqdit.training import diffusion_stage, loop, prepare
from vqdit.training.defaults import defaults, text_tokenizer
from vqdit.training.pipeline import start_run, train


def _texts() -> ConfigDict:
    config = defaults()
    config.data = ConfigDict({'source': 'world', 'train_examples': 16, 'test_examples': 8})
    config.tokenizers = ConfigDict({'text': text_tokenizer('bytes', 8)})
    config.diffusion.tasks = ConfigDict({'->text': 1.0})
    config.diffusion.model.update(width=16, depth=1, heads=2)
    config.diffusion.training.update(steps=2, batch_size=8)
    config.logging.every = 1
    return config


def _prepared(config: ConfigDict, workdir) -> list[str]:
    """The names of what is prepared."""
    names: list[str] = []
    with start_run(config, workdir) as run:
        run.programs.prepare = lambda name, make: names.append(name)
        prepare.prepare_programs(run)
    return names


def test_the_stages_that_are_not_begun_are_prepared_in_their_order(tmp_path):
    config = small_world()
    learned = [f'{name} tokenizer' for name in config.tokenizers if name != 'text']
    assert _prepared(config, tmp_path) == [*learned, 'diffusion']
    (tmp_path / 'tokenizers' / learned[0].split()[0] / 'checkpoints').mkdir(parents=True)
    assert _prepared(config, tmp_path) == [*learned[1:], 'diffusion']


@pytest.mark.parametrize('process', ['code_distance', 'gaussian'])
def test_a_step_that_holds_trained_tokenizers_is_not_prepared(tmp_path, process):
    config = small_world()
    with config.ignore_type():
        config.diffusion.process = ConfigDict({'name': process})
    assert 'diffusion' not in _prepared(config, tmp_path)


@pytest.mark.parametrize(('asked', 'answer'), [('process_count', 2), ('default_backend', 'gpu')])
def test_a_gpu_and_several_processes_compile_in_turn(tmp_path, monkeypatch, asked, answer):
    with start_run(small_world(), tmp_path) as run:
        monkeypatch.setattr(jax, asked, lambda: answer)
        run.programs.prepare = None
        prepare.prepare_programs(run)


def test_the_prepared_step_fits_what_training_has(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, 'compile_step', None)  # Nothing is compiled in turn.
    monkeypatch.setattr(diffusion_stage, '_shower', lambda *arguments: None)
    train(_texts(), tmp_path)
    losses = [json.loads(row)['loss'] for row in (tmp_path / 'diffusion' / 'metrics.jsonl').read_text().splitlines()]
    assert len(losses) == 2 and np.isfinite(losses).all()
