import pytest
from ml_collections import ConfigDict

from vqdit.errors import CheckpointError, VqditError
from vqdit.training import pipeline
from vqdit.training.defaults import defaults, pixels_tokenizer, text_tokenizer
from vqdit.training.image_defaults import image_defaults
from vqdit.training.pipeline import check_config, load_generator, start_run
from vqdit.training.workdir import save_config


def _config() -> ConfigDict:
    config = defaults()
    config.data = ConfigDict({'source': 'world', 'train_examples': 16, 'test_examples': 8})
    image = pixels_tokenizer(4, (8,), {'name': 'finite_scalar', 'scalar_levels': (5, 5)})
    config.tokenizers = ConfigDict({'image': image, 'text': text_tokenizer('bytes', 8)})
    config.diffusion.tasks = ConfigDict({'text->image': 1.0})
    return config


def _set(config: ConfigDict, path: str, value: object) -> ConfigDict:
    with config.unlocked():
        *parents, name = path.split('.')
        section = config
        for parent in parents:
            section = section[parent]
        section[name] = value
    return config


def test_a_sound_config_passes():
    check_config(_config())


@pytest.mark.parametrize(('path', 'value', 'said'), [
    ('diffusion.tasks', {'text->imag': 1.0}, r'"imag", which has no tokenizer.*Did you mean "image"'),
    ('evaluation.tasks', ('text-image',), 'has no "->"'),
    ('evaluation.examples_of', {'audio->text': 5}, '"audio"'),
    ('evaluation.split', 'exluded', 'exluded'),
    ('diffusion.weighting', 'masks', 'bound, masked'),
    ('diffusion.sampler.name', 'orderd', 'ordered'),
    ('diffusion.sampler.steps', 0, 'at least 1 step'),
    ('diffusion.model.heads', 3, '3 heads'),
    ('diffusion.model.patches', {'image': 3}, 'patch 3 of image'),
    ('diffusion.training.schedule', 'cosin', 'Did you mean "cosine"'),
    ('tokenizers.image.training.optimizer', 'adam', 'adamw, muon'),
    ('tokenizers.image.quantizer.name', 'finit_scalar', 'finite_scalar'),
    ('diffusion.training.batch_size', 12, 'batch_size 12 is not divisible by 8'),
    ('mesh.data', 64, 'visible devices'),
    ('data.source', 'wrld', 'world'),
    *((path, value, f'{path} is {value}; it is a whole number, 1 or more') for path, value in [
        ('checkpoints.every', 0), ('logging.every', 0), ('logging.samples_every', -1),
        ('diffusion.sampler.batch_size', 0)]),
])
def test_mistakes_are_found_before_anything_is_written(path, value, said):
    with pytest.raises(VqditError, match=said):
        check_config(_set(_config(), path, value))


def test_a_workdir_in_use_is_left_alone(tmp_path):
    second = start_run(_config(), tmp_path)
    with start_run(_config(), tmp_path), pytest.raises(VqditError, match='is in use by'):
        second.__enter__()


def test_a_workdir_without_a_model_says_what_to_run(tmp_path):
    with pytest.raises(VqditError, match=r'config\.json is missing'):
        load_generator(tmp_path)
    save_config(tmp_path, _config())
    with pytest.raises(VqditError, match='sampler setting "step"'):
        load_generator(tmp_path, step=3)
    with pytest.raises(CheckpointError, match=r'train\.py'):
        load_generator(tmp_path)


@pytest.mark.parametrize('config', [_config(), ConfigDict(image_defaults('DiT-S/8'))])
def test_a_trained_run_says_how_to_sample(tmp_path, monkeypatch, caplog, config):
    monkeypatch.setattr(pipeline, 'check_config', lambda _: None)
    monkeypatch.setattr(pipeline, '_train_modalities', lambda _: None)
    monkeypatch.setattr(pipeline.image_stage, 'train_images', lambda _: None)
    with caplog.at_level('INFO'):
        pipeline.train(config, tmp_path)
    assert f'python sample.py --workdir={tmp_path} --num=8' in caplog.text
