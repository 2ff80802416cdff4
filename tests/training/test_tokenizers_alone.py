"""A config without tasks: its tokenizers are trained and measured, and nothing else is made."""

import json

import pytest
from ml_collections import ConfigDict
from small_world import small_world

from vqdit.errors import UserError
from vqdit.evaluation.report import evaluate
from vqdit.training.ahead import compile_ahead
from vqdit.training.pipeline import load_generator, train


def _config() -> ConfigDict:
    config = small_world()
    config.tokenizers = ConfigDict({'image': config.tokenizers.image})
    config.diffusion.tasks = ConfigDict()
    config.evaluation.tasks = ()
    return config


def test_tokenizers_are_trained_and_measured_alone(tmp_path, capsys, caplog):
    caplog.set_level('INFO')
    train(_config(), tmp_path)
    assert 'trained the tokenizers alone, as diffusion.tasks is empty' in caplog.messages[-1]
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {'tokenizers'}
    folder = tmp_path / 'tokenizers' / 'image'
    assert json.loads((folder / 'health.json').read_text())['tokens'] == 8 * 4 * 4
    assert evaluate(tmp_path) == []
    assert json.loads((folder / 'codebook.json').read_text())['reconstruction']['psnr'] > 0
    assert 'image, level 0: ' in capsys.readouterr().out
    with pytest.raises(UserError, match='has tokenizers alone'):
        load_generator(tmp_path)


def test_there_is_nothing_to_compile_ahead():
    with pytest.raises(UserError, match=r'diffusion\.tasks is empty'):
        compile_ahead(_config())
