"""Compiling ahead of time: what is refused, what is advised, and the step that training would compile."""

import re

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from vqdit.errors import UserError
from vqdit.training import ahead
from vqdit.training.ahead import bytes_on_a_device, compile_ahead, first_remedy
from vqdit.training.defaults import defaults, text_tokenizer
from vqdit.training.image_defaults import image_defaults, published_autoencoder
from vqdit.training.sharding import make_mesh, planned_tree
from vqdit.training.topologies import check_topology


def _config(**mesh: int) -> ConfigDict:
    config = defaults()
    config.data = ConfigDict({'source': 'world', 'train_examples': 16, 'test_examples': 8})
    config.tokenizers = ConfigDict({'text': text_tokenizer('bytes', 8)})
    config.diffusion.tasks = ConfigDict({'->text': 1.0})
    config.diffusion.model.update(width=16, depth=1, heads=2)
    config.diffusion.training.batch_size = 16
    config.mesh.update(mesh)
    return config


def _state(config: ConfigDict, size: int) -> dict:
    create = lambda: {'mlp': {'out': {'kernel': jnp.zeros((64, size))}}}
    return planned_tree(create, config.sharding_rules, make_mesh(config.mesh))


@pytest.mark.parametrize(('name', 'said'), [
    ('v5e:44', 'Did you mean "v5e:4x4"'), ('v5p:4x4', 'v5p:{2x2x1,2x2x2'), ('h100:8', 'Known: v5e:{1x1,2x2'),
])  # fmt: skip
def test_an_unknown_topology_lists_the_known_ones(name, said):
    with pytest.raises(UserError, match='is unknown') as told:
        check_topology(name)
    assert said in str(told.value)


def test_bytes_on_a_device_are_those_of_its_shard():
    assert bytes_on_a_device(_state(_config(fsdp=4), 1024)) == 64 * 1024 * 4 // 4


def test_the_first_remedy_follows_what_takes_the_memory():
    config = _config(data=-1)
    remedy = lambda size, memory: first_remedy(config, make_mesh(config.mesh), _state(config, size), memory)
    # 256 KiB of state: half of 400 KiB holds it in two shards, half of 100 KiB in eight.
    assert remedy(1024, 400 * 1024).startswith('--config.mesh.fsdp=2 ')
    assert remedy(1024, 100 * 1024).startswith('--config.mesh.fsdp=8 ')
    assert remedy(1024, 2**20) == '--config.diffusion.model.remat=dots'
    config.diffusion.model.remat = 'full'
    assert remedy(1024, 2**20) == '--config.diffusion.training.accumulate=2'
    config.diffusion.training.accumulate = 2
    assert remedy(1024, 2**20) == '--config.mesh.fsdp=8'
    config.mesh.fsdp = 8
    assert remedy(1024, 2**20).startswith('more chips')


@pytest.mark.parametrize('message', [
    'Ran out of memory in memory space hbm. Used 18.03G of 15.75G hbm. Exceeded hbm capacity by 2.28G.',
    'the total memory required for HLO temporaries (18.03G) exceeds available HBM (15.75G).',
])
def test_a_step_that_xla_refuses_says_by_how_much(monkeypatch, message):
    def refuse(*arguments):
        raise jax.errors.JaxRuntimeError(f'RESOURCE_EXHAUSTED: {message}')
    monkeypatch.setattr(ahead, 'compile_step', refuse)
    with pytest.raises(UserError, match=r'18\.03 GiB a chip of 15\.75, 2\.28 GiB too much.*remat=dots'):
        compile_ahead(_config())


@pytest.mark.slow
def test_the_report_is_that_of_the_step_on_the_devices_here():
    report = compile_ahead(_config(fsdp=8, data=1))
    assert 'diffusion on 8 CPU devices' in report and 'all-gather' in report and 'GiB a device' in report


@pytest.mark.parametrize(('mesh', 'said'), [
    ({'data': 1, 'tensor': 4}, 'mesh.tensor 4 does not divide diffusion.model.heads, 2; choose one of 1, 2'),
    ({'data': 1, 'sequence': 3}, 'mesh.sequence 3 does not divide the tokens .*, 8; choose one of 1, 2, 4, 8'),
    ({'data': 3}, 'batch_size 16 is not divisible by 3'),
])
def test_a_mesh_that_does_not_divide_the_work_is_refused_with_the_remedy(mesh, said):
    with pytest.raises(UserError, match=said):
        compile_ahead(_config(**mesh))


def test_the_step_of_an_image_model_is_compiled_too():
    config = image_defaults('DiT-S/8')
    config.data = ConfigDict({'source': 'tfds', 'name': 'imagenet2012', 'image': {'size': 64, 'channels': 3}})
    config.tokenizers = ConfigDict({'image': published_autoencoder()})
    config.diffusion.model.update(depth=1, width=16, heads=2)
    config.diffusion.training.batch_size = 8
    assert re.search(r'diffusion on 8 CPU devices.*parameters', compile_ahead(config))
