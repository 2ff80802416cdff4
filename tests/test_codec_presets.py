"""Every preset of `configs/codecs.py` is what its docstring says."""

import math
import re
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags

from vqdit import command
from vqdit.config_file import load_config
from vqdit.data.preprocess import read_formats
from vqdit.errors import UserError
from vqdit.training.factory import build_learned_tokenizer
from vqdit.training.pipeline import check_config, check_model
from vqdit.training.sharding import make_mesh
from vqdit.training.tokenizer_training import build_training

FILE = Path(__file__).resolve().parents[1] / 'configs' / 'codecs.py'
PRESETS = runpy.run_path(str(FILE))['PRESETS']
LAYOUT = re.compile(r'([\d,]+) tokens of ([\d,]+) codes, ([\d.,]+) bits per (pixel|second)')


def _number(text: str) -> float:
    return float(text.replace(',', ''))


@pytest.mark.parametrize('preset', PRESETS)
def test_a_preset_has_its_layout(preset):
    config = load_config(f'{FILE}:{preset}')
    check_model(config, make_mesh(config.mesh))
    (modality,) = config.tokenizers
    tokenizer = build_learned_tokenizer(config, modality)
    spec, tokens, codes, rate, unit = tokenizer.spec, *LAYOUT.search(PRESETS[preset].__doc__).groups()
    bits = tokenizer.autoencoder.quantizer.bits_per_token * math.prod(spec.grid)
    extent = config.data.audio.seconds if modality == 'audio' else math.prod(tokenizer.front_end.size)
    assert (spec.length, spec.num_codes) == (_number(tokens), _number(codes))
    assert bits == pytest.approx(spec.length * math.log2(spec.num_codes))
    assert unit == ('second' if modality == 'audio' else 'pixel')
    assert float(f'{bits / extent:.3g}') == _number(rate)


def _raw(config, modality: str) -> jax.ShapeDtypeStruct:
    """A batch as the data of the config gives it."""
    section, rows = getattr(read_formats(config.data), modality), config.tokenizers[modality].training.batch_size
    if modality == 'audio':
        return jax.ShapeDtypeStruct((rows, section.samples), np.float32)
    frames = (section.frames,) if modality == 'video' else ()
    return jax.ShapeDtypeStruct((rows, *frames, section.size, section.size, section.channels), np.uint8)


SMALL = ('image_28_bernoulli', 'film_32')


@pytest.mark.parametrize('preset', [
    preset if preset in SMALL else pytest.param(preset, marks=pytest.mark.slow) for preset in PRESETS])
def test_a_preset_takes_a_step_as_far_as_shapes_go(preset):
    config = load_config(f'{FILE}:{preset}')
    (modality,) = config.tokenizers
    tokenizer, key = build_learned_tokenizer(config, modality), jax.random.key(0)
    training = build_training(config, modality, tokenizer)
    state = jax.eval_shape(lambda: training.create(tokenizer.init(key), key))
    after, metrics = jax.eval_shape(training.step, state, {modality: _raw(config, modality)}, key)
    assert jax.tree.structure(after) == jax.tree.structure(state) and metrics['loss'].shape == ()


def test_a_preset_fits_its_data(shared_data):
    config = load_config(f'{FILE}:image_28')
    config.data.root = str(shared_data / 'tfds')
    check_config(config)


def test_a_preset_is_chosen_on_the_command_line():
    values = flags.FlagValues()
    holder = command.config_flag(values)
    command.parse(['train.py', f'--config={FILE}:query_64', '--config.tokenizers.image.queries=48'], values)
    assert holder.value.tokenizers.image.queries == 48 and holder.value.data.image.size == 64


def test_a_preset_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r'preset "imge_64" is unknown.*Did you mean "image_64"'):
        load_config(f'{FILE}:imge_64')
    with pytest.raises(UserError, match='choose one of image_28, '):
        load_config(str(FILE))
