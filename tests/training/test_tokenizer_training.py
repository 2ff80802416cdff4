"""Fine-tuning of the decoder alone, from a trained workdir; with and without an adversary."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from vqdit.errors import CheckpointError, UserError
from vqdit.training.checkpoints import Checkpoints
from vqdit.training.defaults import adversary, defaults, pixels_tokenizer
from vqdit.training.factory import build_learned_tokenizer
from vqdit.training.tokenizer_training import build_training, freeze, initial_variables, restore_tokenizer
from vqdit.training.workdir import save_config

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
QUICK = {'xla_backend_optimization_level': 0}
BATCH, ROOT = {'image': PIXELS}, jax.random.key(3)


def _config(**options) -> ConfigDict:
    config = defaults()
    config.data = ConfigDict({'source': 'world', 'image': {'size': 8, 'channels': 1}})
    image = pixels_tokenizer(4, (8,), {'name': 'vector', 'num_codes': 8, 'dimension': 4})
    image.training.update(steps=10, warmup_steps=0, weight_decay=0.1)
    image.update(options)
    config.tokenizers = ConfigDict({'image': image})
    return config


def _training(config):
    return build_training(config, 'image', build_learned_tokenizer(config, 'image'))


def _start(config):
    """The state before the first step."""
    key, initial = jax.random.key(1), initial_variables(config, 'image', build_learned_tokenizer(config, 'image'))
    return jax.jit(lambda: _training(config).create(initial(key), key), compiler_options=QUICK)()


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A workdir with a tokenizer after three steps."""
    folder, config = tmp_path_factory.mktemp('trained'), _config()
    state, step = _start(config), jax.jit(_training(config).step, compiler_options=QUICK)
    for _ in range(3):
        state, _ = step(state, BATCH, ROOT)
    save_config(folder, config)
    with Checkpoints(str(folder / 'tokenizers/image/checkpoints'), keep=1) as checkpoints:
        checkpoints.save(3, {'state': state}, wait=True)
    return folder


@pytest.mark.parametrize('against', [ConfigDict(), adversary({'name': 'patch', 'width': 4, 'layers': 1})])
def test_only_the_decoder_changes_and_the_codes_stay(workdir, against):
    config = _config(fine_tune=str(workdir), adversary=against)
    before, step = _start(config), jax.jit(_training(config).step, compiler_options=QUICK)
    source = restore_tokenizer(workdir, 'image')
    jax.tree.map(np.testing.assert_array_equal, before.params, source.variables['params'])
    after, metrics = before, {}
    for _ in range(2):
        after, metrics = step(after, BATCH, ROOT)
    for name in ('params', 'ema'):
        old, new = getattr(before, name), getattr(after, name)
        moved = {part: any(not np.allclose(a, b, rtol=1e-6, atol=0) for a, b in
                           zip(jax.tree.leaves(old[part]), jax.tree.leaves(new[part]))) for part in old}
        assert moved == {part: part == 'decoder' for part in old}
    jax.tree.map(np.testing.assert_array_equal, after.codebook, before.codebook)
    np.testing.assert_array_equal(freeze(source.tokenizer, after).encode(PIXELS), source.encode(PIXELS))
    assert float(metrics['gradient_norm']) > 0 and 'perplexity' in metrics


def test_a_tokenizer_of_another_layout_is_refused(workdir):
    config = _config(fine_tune=str(workdir), widths=(16,))
    with pytest.raises(UserError, match=r'tokenizers\.image\.fine_tune: .*coder.* has shape'):
        _start(config)


def test_what_is_not_there_is_named(workdir, tmp_path):
    with pytest.raises(UserError, match='no tokenizer of "video"; it has image'):
        restore_tokenizer(workdir, 'video')
    save_config(tmp_path, _config())
    with pytest.raises(CheckpointError, match='no trained tokenizer of "image"'):
        restore_tokenizer(tmp_path, 'image')


@pytest.mark.parametrize('options, message', [
    ({'adversary': adversary()}, 'adversary.discriminators is empty'),
    ({'adversary': adversary({'name': 'pach'})}, 'Did you mean "patch"'),
    ({'adversary': ConfigDict(adversary({'name': 'patch'}).to_dict() | {'game': 'hing'})}, 'Did you mean "hinge"'),
    ({'losses': ConfigDict({'gradent': 1.0})}, 'Did you mean "gradient"')])
def test_misspelt_settings_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        _training(_config(**options))
