"""The measured workdir and the sweep of codebook sizes, on tiny trainings of the built-in world."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from vqdit.errors import UserError
from vqdit.evaluation.codebook_size import draw, recommend, sweep
from vqdit.evaluation.tokenizers import measure_workdir, reconstruction_figures
from vqdit.training.checkpoints import Checkpoints
from vqdit.training.defaults import defaults, pixels_tokenizer
from vqdit.training.factory import build_learned_tokenizer
from vqdit.training.tokenizer_training import build_training
from vqdit.training.workdir import save_config


def _config() -> ConfigDict:
    config = defaults()
    config.data = ConfigDict({'source': 'world', 'train_examples': 64, 'test_examples': 16,
                              'image': {'size': 16, 'channels': 3}})
    image = pixels_tokenizer(8, (16,), {'name': 'finite_scalar', 'scalar_levels': (5, 3)})
    image.training.update(steps=5, batch_size=8, warmup_steps=0)
    config.tokenizers = ConfigDict({'image': image})
    return config


def test_a_workdir_is_measured_and_shown(tmp_path):
    config = _config()
    tokenizer, key = build_learned_tokenizer(config, 'image'), jax.random.key(0)
    state = jax.jit(lambda: build_training(config, 'image', tokenizer).create(tokenizer.init(key), key))()
    save_config(tmp_path, config)
    with Checkpoints(str(tmp_path / 'tokenizers/image/checkpoints'), keep=1) as checkpoints:
        checkpoints.save(0, {'state': state}, wait=True)
    lines = list(measure_workdir(tmp_path))
    health = json.loads((tmp_path / 'tokenizers/image/codebook.json').read_text())
    assert (tmp_path / 'tokenizers/image/codebook.png').stat().st_size > 100
    assert set(health['reconstruction']) == {'psnr', 'ssim', 'frechet_distance'}
    assert len(health['parts']['level 0']['digits']) == 2
    assert 'bits per token' in lines[0] and 'psnr' in lines[-1]


def test_sounds_and_tiny_pictures_have_the_figures_that_they_can_have():
    sound = np.random.default_rng(0).normal(size=(2, 4000)).astype(np.float32)
    figures = reconstruction_figures(0.5 * sound, sound, 8000)
    assert figures['si_sdr'] > 60 and figures['mel_distance'] == pytest.approx(np.log10(2), abs=1e-3)
    assert 'ssim' not in reconstruction_figures(*(np.zeros((4, 8, 8, 1), np.uint8),) * 2, 8000)


def test_a_sweep_gives_rate_and_distortion_of_every_size():
    points = sweep(_config(), 'image', steps=3, sizes=((4, 4), (8, 6, 5)))
    assert [point['codes'] for point in points] == [16, 240]
    assert [point['bits'] for point in points] == pytest.approx([16, 4 * np.log2(240)])
    assert all(0 <= point['entropy_bits'] <= point['bits'] and np.isfinite(point['psnr']) for point in points)
    assert draw(points).getcolors() != draw([points[0] | {'psnr': 1.0}, points[1]]).getcolors()


def test_the_fewest_codes_that_come_near_the_best_are_recommended():
    points = [{'codes': codes, 'psnr': psnr, 'bits': bits, 'entropy_bits': bits}
              for codes, psnr, bits in ((16, 18.0, 196), (1000, 24.7, 490), (4375, 25.0, 590))]
    assert recommend(points).startswith('1000 codes reach 24.7 dB at 490 bits')


def test_a_modality_without_codes_of_its_own_is_refused():
    with pytest.raises(UserError, match='the config has image'):
        sweep(_config(), 'text', steps=1)
