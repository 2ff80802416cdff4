"""Every shipped config fits together: its data, tokenizers, tasks and model."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from vqdit.diffusion.clock import TaskMixture
from vqdit.tokenizers.spec import TokenLayout, TokenSpec
from vqdit.training.factory import build_learned_tokenizer, build_model, learned_modalities
from vqdit.training.image_factory import image_training, planned_latents
from vqdit.training.optimizers import build_optimizer
from vqdit.training.pipeline import check_config

FOLDER = Path(__file__).resolve().parents[1] / 'configs'
DATA = {'quickstart': None, 'digits': 'tfds', 'emoji': 'openmoji', 'coco_text_to_image': None, 'multimodal_base': None,
        'multimodal_xl': None}
IMAGES = {'imagenet256_dit_xl2': 675_129_632, 'imagenet256_sit_xl2': 675_129_632, 'imagenet512_dit_xl2': 676_014_368}


def _config(name: str) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(module.__doc__.splitlines()) >= 3, 'a config says what it is for'
    return module.get_config()


def test_every_config_is_tested():
    assert {path.stem for path in FOLDER.glob('*.py')} == {*DATA, *IMAGES, 'codecs'}, 'codecs: test_codec_presets.py'


@pytest.mark.parametrize('name', [name for name, folder in DATA.items() if folder])
def test_a_config_fits_its_data(name, request):
    config = _config(name)
    config.data.root = str(request.getfixturevalue('shared_data') / DATA[name])
    check_config(config)


@pytest.mark.parametrize('name', DATA)
def test_a_config_makes_models_that_fit_together(name):
    config = _config(name)
    specs = {modality: build_learned_tokenizer(config, modality).spec for modality in learned_modalities(config)}
    layout = TokenLayout({modality: specs.get(modality) or TokenSpec((config.tokenizers[modality].length,), 40)
                          for modality in config.tokenizers})
    model, codes = build_model(config, layout), jnp.zeros((2, layout.length), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), codes, jnp.zeros(codes.shape))['params']
    logits = jax.eval_shape(model.apply, {'params': params}, codes, jnp.zeros(codes.shape))
    assert {modality: part.shape for modality, part in logits.items()} == {
        modality: (2, spec.length, spec.num_codes) for modality, spec in layout.specs.items()}
    roles, _ = jax.eval_shape(lambda key: TaskMixture(dict(config.diffusion.tasks), layout).draw(key, 2),
                              jax.random.key(0))
    assert roles.shape == codes.shape
    for section in (config.diffusion.training, *(config.tokenizers[part].training for part in specs)):
        optimizer = build_optimizer(section, section.steps)
        state = jax.eval_shape(optimizer.init, params)
        jax.eval_shape(optimizer.update, params, state, params)


@pytest.mark.parametrize('name', IMAGES)
def test_a_config_of_images_makes_a_network_that_trains_on_its_latents(name):
    config = _config(name)
    latents = planned_latents(config)
    create, step = image_training(config, latents, {})
    state = jax.eval_shape(create)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == IMAGES[name]
    batch = {'codes': jnp.zeros((2, latents.spec.length), jnp.int32), 'label': jnp.zeros(2, jnp.int32)}
    after, metrics = jax.eval_shape(step, state, batch, jax.random.key(0))
    assert jax.tree.structure(after) == jax.tree.structure(state) and metrics['loss'].shape == ()
