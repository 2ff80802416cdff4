"""Truncation from a config and from one call of sample.py."""

import pytest
from ml_collections import ConfigDict
from small_world import small_world

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.samplers import Ordered, Truncated
from vqdit.errors import UserError
from vqdit.training.pipeline import check_config
from vqdit.training.sampling import build_sampler, change_sampler


def test_it_wraps_whatever_sampler_is_asked_for():
    config = small_world()
    assert build_sampler(config, Absorbing()) == Ordered(16)
    change_sampler(config, {'sampler': 'first_hitting', 'top_k': 5, 'top_p': 0.9, 'temperature': 0.7})
    outer = build_sampler(config, Absorbing())
    assert isinstance(outer, Truncated) and outer.truncation.keywords == {'count': 5}
    assert outer.sampler.truncation.keywords == {'mass': 0.9} and outer.sampler.sampler.temperature == 0.7


def test_what_cannot_be_is_refused_before_anything_is_written():
    config = small_world()
    config.diffusion.sampler.update(top_p=2.0)
    with pytest.raises(UserError, match=r'top_p is 2.0'):
        check_config(config)
    config.diffusion.process = ConfigDict({'name': 'gaussian'})
    config.diffusion.sampler = ConfigDict({'name': 'heun', 'steps': 2, 'batch_size': 8, 'top_k': 3})
    with pytest.raises(UserError, match=r'top_k truncates the draws of codes.*set it to None'):
        check_config(config)
