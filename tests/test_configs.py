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
from vqdit.training.optimizers import build_optimizer
from vqdit.training.pipeline import check_config

FOLDER = Path(__file__).resolve().parents[1] / 'configs'
DATA = {'quickstart': None, 'digits': 'tfds', 'emoji': 'openmoji'}


def _config(name: str) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(module.__doc__.splitlines()) >= 3, 'a config says what it is for'
    return module.get_config()


def test_every_config_is_tested():
    assert {path.stem for path in FOLDER.glob('*.py')} == set(DATA)


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
