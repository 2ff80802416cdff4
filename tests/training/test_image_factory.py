"""From a config to the network of an image DiT."""

import pytest
from ml_collections import ConfigDict

from vqdit.errors import UserError
from vqdit.models.parts import PARTS, Parts
from vqdit.training.image_defaults import image_defaults, published_autoencoder
from vqdit.training.image_factory import build_image_model, planned_latents


def _config(**parts):
    config = image_defaults('SiT-S/8')
    config.data = ConfigDict({'source': 'tfds', 'name': 'imagenet2012', 'image': {'size': 64, 'channels': 3}})
    config.tokenizers = ConfigDict({'image': published_autoencoder()})
    config.diffusion.model.parts.update(parts)
    return config.lock()


def _model(config):
    return build_image_model(config, planned_latents(config))


@pytest.mark.parametrize(('settings', 'parts'), [
    ({}, Parts()), ({'name': 'modern'}, PARTS['modern']()), ({'name': 'lightning'}, PARTS['lightning']()),
    ({'name': 'published', 'query_norm': 'scaled_rms'}, Parts(query_norm='scaled_rms'))])
def test_parts_are_a_name_and_what_replaces_its_own(settings, parts):
    assert _model(_config(**settings)).parts == parts


def test_configs_that_know_no_parts_have_the_published_ones():
    config = _config().unlock()
    del config.diffusion.model['parts'], config.diffusion.model['registers']
    assert _model(config) == _model(_config())


@pytest.mark.parametrize(('settings', 'said'), [
    ({'name': 'modem'}, r'diffusion\.model\.parts\.name "modem" is unknown.*Did you mean "modern"'),
    ({'network': 'glu'}, r'the network of the blocks "glu" is unknown; choose one of gelu, swiglu')])
def test_unknown_parts_are_told_the_known_ones(settings, said):
    with pytest.raises(UserError, match=said):
        _model(_config(**settings))
