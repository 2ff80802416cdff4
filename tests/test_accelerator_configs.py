"""Every config that is meant for accelerators, shrunk, takes a step on mock data and can be sampled."""

import csv
import io
import json
import wave
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from ml_collections import ConfigDict
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from vqdit.config_file import load_config
from vqdit.data.token_store import TokenStore
from vqdit.errors import UserError
from vqdit.evaluation.report import evaluate
from vqdit.files import read_json
from vqdit.interop.latent_diffusion import import_autoencoder
from vqdit.tokenizers.latents import GaussianLatents
from vqdit.tokenizers.pixels import Pixels
from vqdit.training.defaults import pixels_tokenizer
from vqdit.training.image_defaults import learned_autoencoder
from vqdit.training.image_stage import check_labels
from vqdit.training.pipeline import check_config, load_image_generator, train

ROOT = Path(__file__).parents[1]
AUTOENCODER = ROOT / 'tests' / 'interop' / 'golden' / 'ldm_gaussian'
EXAMPLES = 8


def _picture(index: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(index).integers(0, 256, (20, 16, 3), np.uint8)
    Image.fromarray(pixels).save(file, 'PNG')
    return file.getvalue()


def _write_imagenet(root: Path) -> None:
    """The TFDS set as far as it is read: pictures and labels, with the names of the files."""
    folder = root / 'imagenet2012' / '5.1.0'
    folder.mkdir(parents=True)
    kind = 'tensorflow_datasets.core.features.'
    features = {
        'image': {'pythonClassName': f'{kind}image_feature.Image', 'image': {'shape': {'dimensions': ['-1'] * 3}}},
        'label': {'pythonClassName': f'{kind}class_label_feature.ClassLabel', 'classLabel': {'numClasses': '1000'}},
        'file_name': {'pythonClassName': f'{kind}text_feature.Text', 'text': {}}}
    (folder / 'features.json').write_text(json.dumps(
        {'pythonClassName': f'{kind}features_dict.FeaturesDict', 'featuresDict': {'features': features}}))
    splits = [{'name': name, 'shardLengths': [str(EXAMPLES)], 'numBytes': '1',
               'filepathTemplate': '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'} for name in ('train', 'validation')]
    (folder / 'dataset_info.json').write_text(json.dumps(
        {'name': 'imagenet2012', 'version': '5.1.0', 'fileFormat': 'array_record', 'splits': splits}))
    for split in ('train', 'validation'):
        writer = ArrayRecordWriter(str(folder / f'imagenet2012-{split}.array_record-00000-of-00001'), 'group_size:1')
        for index in range(EXAMPLES):
            example = tf_example_pb2.Example()
            example.features.feature['image'].bytes_list.value.append(_picture(index))
            example.features.feature['label'].int64_list.value.append(index % 3)
            example.features.feature['file_name'].bytes_list.value.append(b'x.JPEG')
            writer.write(example.SerializeToString())
        writer.close()


def _write_folder(root: Path) -> None:
    root.mkdir()
    with open(root / 'metadata.csv', 'w', newline='') as file:
        table = csv.writer(file)
        table.writerow(['image', 'audio', 'text', 'split'])
        for index in range(2 * EXAMPLES):
            (root / f'{index}.png').write_bytes(_picture(index))
            with wave.open(str(root / f'{index}.wav'), 'wb') as sound:
                sound.setnchannels(1)
                sound.setsampwidth(2)
                sound.setframerate(16_000)
                sound.writeframes(np.random.default_rng(index).integers(-9999, 9999, 2048, np.int16).tobytes())
            table.writerow([f'{index}.png', f'{index}.wav', f'picture {index}', ('train', 'test')[index % 2]])


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('data')
    _write_imagenet(root / 'tfds')
    _write_folder(root / 'folder')
    return root


def _images(name: str, data: Path, size: int = 8) -> ConfigDict:
    config = load_config(f'{ROOT}/configs/{name}.py').unlock()
    config.data.update(root=str(data / 'tfds'))
    config.data.image.size = size
    config.tokenizers.image.update(weights=str(AUTOENCODER), stride=2)
    config.diffusion.model.update(width=16, depth=1, heads=2, classes=3)
    config.diffusion.training.update(steps=1, batch_size=8)
    config.diffusion.sampler.update(steps=2, batch_size=8)
    config.mesh.fsdp = min(config.mesh.fsdp, 2)
    return config


def _modalities(name: str, data: Path) -> ConfigDict:
    config = load_config(f'{ROOT}/configs/{name}.py').unlock()
    config.data.update(root=str(data / 'folder'))
    config.data.image.size = 16
    config.data.audio = {'rate': 16_000, 'seconds': 0.128}
    for section in config.tokenizers.values():
        if 'training' not in section:
            section.length = 16
        else:
            section.update(widths=(8,) * len(section.widths), blocks=1)
            section.training.update(steps=1, batch_size=8)
    config.diffusion.model.update(width=32, depth=1, heads=4)
    config.diffusion.training.update(steps=1, batch_size=8)
    config.evaluation.tasks = ()
    config.mesh.fsdp = min(config.mesh.fsdp, 2)
    return config


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory) -> Path:
    """DiT-XL/2 at 256 px, shrunk, after its step."""
    workdir = tmp_path_factory.mktemp('runs') / 'dit'
    train(_images('imagenet256_dit_xl2', data), workdir)
    return workdir


def _last_row(workdir: Path) -> dict:
    return json.loads((workdir / 'diffusion' / 'metrics.jsonl').read_text().splitlines()[-1])


def test_a_dit_takes_a_step_and_shows_samples(trained):
    row = _last_row(trained)
    # The answer starts at zero: an error of 1 for the noise, and half of the log of each variance.
    assert row['step'] == 1 and row['noise_error'] == pytest.approx(1.0, abs=0.2) and row['skipped'] == 0
    assert np.isfinite(row['variance_bits']) and row['loss'] == pytest.approx(row['noise_error'] + row['variance_bits'])
    assert (trained / 'diffusion' / 'samples' / '0000001.png').stat().st_size > 0


def test_latents_and_labels_are_stored_for_every_copy(trained):
    store = TokenStore(trained / 'tokens', 'train')
    kept = EXAMPLES - 1  # a twentieth of a set without a split "test", at least one
    assert len(store) == 2 * kept and [store[i]['label'] for i in range(kept)] == [0, 1, 2, 0, 1, 2, 0]
    assert not (trained / 'tokens' / 'test').exists()


def test_labels_without_a_class_are_refused(trained):
    store = TokenStore(trained / 'tokens', 'train')
    check_labels(store, 3)
    with pytest.raises(UserError, match=r'labels of the data are 0 to 2, and diffusion\.model\.classes=2 has'):
        check_labels(store, 2)


def test_a_trained_dit_is_loaded_and_sampled_by_class(trained):
    generator = load_image_generator(trained, steps=2, guidance=1.0)
    images = generator.generate(np.arange(8, dtype=np.int32) % 4)
    assert images.shape == (8, 8, 8, 3) and images.dtype == np.uint8
    assert generator.settings == {'solver': 'ddpm', 'steps': 2, 'guidance': 1.0}
    assert read_json(trained / 'tokenizers' / 'image' / 'config.json')['_class_name'] == 'AutoencoderKL'
    assert evaluate(trained) == []
    with pytest.raises(UserError, match='sampler setting "step"'):
        load_image_generator(trained, step=3)


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'size'), [('imagenet256_sit_xl2', 8), ('imagenet512_dit_xl2', 16)])
def test_other_image_configs_take_a_step(name, size, data, tmp_path):
    train(_images(name, data, size), tmp_path)
    assert _last_row(tmp_path)['step'] == 1


@pytest.mark.slow
@pytest.mark.parametrize('space', ['code_vectors', 'latents'])
def test_an_image_dit_on_a_tokenizer_of_its_own(space, data, tmp_path):
    config = _images('imagenet256_sit_xl2', data)
    section = pixels_tokenizer(4, (8,), {'name': 'finite_scalar', 'scalar_levels': (5, 5)})
    section.training.update(steps=1, batch_size=8)
    config.tokenizers = ConfigDict({'image': learned_autoencoder(section, space)})
    train(config, tmp_path)
    assert TokenStore(tmp_path / 'tokens', 'train')[0]['codes'].shape == ((8,) if space == 'latents' else (4,))
    generator = load_image_generator(tmp_path)
    assert (*generator.model.size, generator.model.channels) == (2, 2, 2)
    assert generator.generate(np.zeros(8, np.int32)).shape == (8, 8, 8, 3)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['coco_text_to_image', 'multimodal_base', 'multimodal_xl'])
def test_multimodal_configs_take_a_step(name, data, tmp_path):
    train(_modalities(name, data), tmp_path)
    assert _last_row(tmp_path)['step'] == 1


@pytest.mark.parametrize(('path', 'value', 'said'), [
    ('tokenizers.image.weights', '', 'tokenizers.image.weights is empty'),
    ('diffusion.process.name', 'dot', 'Did you mean "dit"'),
    ('diffusion.sampler.solver', 'hen', 'Did you mean "heun"'),
    ('diffusion.sampler.steps', 2000, '2000 steps'),
    ('diffusion.model.heads', 3, '3 heads'),
    ('diffusion.training.batch_size', 12, 'not divisible by 8'),
    ('data.name', 'imagenet2013', 'imagenet2013'),
])
def test_mistakes_are_found_before_anything_is_written(path, value, said, data):
    config = _images('imagenet256_dit_xl2', data)
    *parents, key = path.split('.')
    section = config
    for parent in parents:
        section = section[parent]
    section[key] = value
    with pytest.raises(Exception, match=said):
        check_config(config)


def test_an_autoencoder_of_another_stride_is_refused(data, tmp_path):
    config = _images('imagenet256_dit_xl2', data)
    config.tokenizers.image.stride = 4
    with pytest.raises(UserError, match=r'latents \(4, 4, 4\) of these images, not \(2, 2, 4\)'):
        train(config, tmp_path)


def test_stored_latents_are_the_moments_of_the_autoencoder():
    autoencoder, params = import_autoencoder(AUTOENCODER)
    latents = GaussianLatents(Pixels((8, 8), 3), autoencoder)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    variables = {'params': params}
    codes = np.asarray(latents.encode(variables, images))
    assert codes.shape == (2, latents.spec.length) and codes.min() >= 0 and codes.max() < latents.spec.num_codes
    mean, log_variance = autoencoder.apply(variables, images / np.float32(127.5) - 1, method='moments')
    kept, deviation = latents.moments(codes)
    np.testing.assert_allclose(kept, mean * autoencoder.scale, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(deviation, np.exp(0.5 * log_variance) * autoencoder.scale, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(('process', 'solver', 'steps'), [
    ({'name': 'mean_flow', 'mixed': 0.5, 'guidance': {'name': 'scale', 'weight': 2.0}}, 'stride', 1),
    ({'name': 'shortcut'}, 'stride', 4),
    ({'name': 'consistency', 'levels': 'doubled'}, 'renoise', 2)])
def test_few_step_models_train_and_sample_from_a_config(process, solver, steps, data, tmp_path):
    config = _images('imagenet256_sit_xl2', data)
    config.diffusion.process = ConfigDict(process)
    config.diffusion.training.steps = 2
    config.diffusion.sampler.update(solver=solver, steps=steps, guidance=1.0)
    train(config, tmp_path)
    row = _last_row(tmp_path)
    assert row['step'] == 2 and row['skipped'] == 0 and np.isfinite(row['loss'])
    generator = load_image_generator(tmp_path)
    assert generator.settings == {'solver': solver, 'steps': steps, 'guidance': 1.0}
    assert generator.generate(np.zeros(8, np.int32)).shape == (8, 8, 8, 3)


@pytest.mark.parametrize(('process', 'changes', 'said'), [
    ({'name': 'sit'}, {'sampler.solver': 'stride'}, 'stride needs a network of strides, .*"mean_flow"'),
    ({'name': 'consistency'}, {'sampler.solver': 'heun'}, 'solver heun does not fit.*takes renoise'),
    ({'name': 'mean_flow'}, {'sampler.solver': 'renoise'}, 'solver renoise does not fit'),
    ({'name': 'mean_flow', 'flow_shere': 0.5}, {}, 'Did you mean "flow_share"'),
    ({'name': 'mean_flow', 'guidance': {'name': 'scale', 'weight': 2.0}}, {}, 'sampler.guidance is 1.5, on top of'),
    ({'name': 'mean_flow', 'guidance': {'name': 'scale'}}, {}, 'guidance.weight is missing'),
    ({'name': 'consistency', 'levels': 'duobled'}, {}, 'Did you mean "doubled"'),
    ({'name': 'mean_flow', 'times': 'logit'}, {}, 'process.times.name "logit" is unknown'),
    ({'name': 'mean_flow'}, {'model.implementation': 'cudnn'}, 'cuDNN cannot; set diffusion.model.implementation'),
    ({'name': 'shortcut'}, {'sampler.steps': 3}, 'cannot take 3 steps'),
    ({'name': 'sit', 'path': 'flow'}, {}, 'no setting of "sit", which takes none'),
])
def test_few_step_settings_that_do_not_fit_are_refused(process, changes, said, data):
    config = _images('imagenet256_sit_xl2', data)
    config.diffusion.process = ConfigDict(process)
    for path, value in changes.items():
        section, key = path.split('.')
        config.diffusion[section][key] = value
    with pytest.raises(UserError, match=said):
        check_config(config)
