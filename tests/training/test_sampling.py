"""Every process and sampler that a config can name: trained for a step, sampled, and measured."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from small_world import small_world

from vqdit.diffusion.categorical import ByModality
from vqdit.diffusion.clock import Task, TaskMixture
from vqdit.diffusion.samplers import guided, sample_keys
from vqdit.errors import UserError
from vqdit.tokenizers.frozen import FrozenTokenizer
from vqdit.tokenizers.spec import TokenLayout
from vqdit.tokenizers.text import WordTokenizer
from vqdit.training.factory import build_learned_tokenizer, build_model, build_process
from vqdit.training.objective import diffusion_loss
from vqdit.training.pipeline import check_config, load_generator, train
from vqdit.training.sampling import build_guidance, build_sampler, change_sampler, check_guidance
from vqdit.training.workdir import save_config

PROCESSES = {'absorbing': 'ordered', 'uniform': 'ancestral', 'mask_and_replace': 'ancestral',
             'code_distance': 'tau_leaping'}


def _config(**changes) -> ConfigDict:
    config = small_world()
    config.diffusion.sampler.update(steps=2, batch_size=4)
    for path, value in changes.items():
        config.diffusion[path].update(value)
    return config


@pytest.fixture(scope='module')
def first(tmp_path_factory):
    """A workdir trained with the absorbing process: the tokenizers and tokens serve the others too."""
    workdir = tmp_path_factory.mktemp('runs') / 'absorbing'
    train(_config(), workdir)
    return workdir


@pytest.mark.parametrize('name', PROCESSES)
def test_every_process_has_a_loss_and_a_sampler_that_fit_the_model(name):
    """Traced, not run: the gradient of the loss, samples under guidance, and the way to them."""
    sampling = {'name': PROCESSES[name], 'guidance': 2.0, 'guidance_rescale': 0.5}
    config = _config(process={'name': name}, sampler=sampling)
    tokenizers = {'image': FrozenTokenizer(build_learned_tokenizer(config, 'image'), {}),
                  'text': WordTokenizer(('red', 'green'), 12)}
    layout = TokenLayout({modality: tokenizer.spec for modality, tokenizer in tokenizers.items()})
    process, model = build_process(config, layout, tokenizers), build_model(config, layout)
    codes = jnp.zeros((8, layout.length), jnp.int32)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), codes, jnp.zeros(codes.shape))['params'])
    loss = diffusion_loss(model, process, TaskMixture(dict(config.diffusion.tasks), layout), 'masked')
    grads = jax.eval_shape(jax.grad(lambda p: loss(p, {}, {'codes': codes}, jax.random.key(0))[0]), params)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
    denoiser = lambda p: guided(lambda c, t: model.apply({'params': p}, c, t), layout, codes, build_guidance(config))
    way = jax.eval_shape(lambda p: build_sampler(config, process).trajectory(
        sample_keys(jax.random.key(0), jnp.arange(8)), denoiser(p), codes, codes, layout), params)
    assert way.shape == (3, *codes.shape) and way.dtype == jnp.int32
    assert isinstance(process, ByModality) == (name == 'code_distance')


@pytest.mark.slow
@pytest.mark.parametrize('name', PROCESSES)
def test_every_process_trains_and_samples(first, tmp_path, name):
    workdir = first
    if name != 'absorbing':
        workdir = tmp_path / name
        for part in ('tokenizers', 'tokens'):
            shutil.copytree(first / part, workdir / part)
        train(_config(process={'name': name}, sampler={'name': PROCESSES[name]}), workdir)
    generator, config = load_generator(workdir, guidance=2.0, guidance_interval=(0.2, 1.0))
    codes = generator.generate_codes(Task.parse('text->image'), np.zeros((4, generator.layout.length), np.int32))
    assert (codes[:, generator.layout.slice('image')] < 25).all()
    assert config.diffusion.process.name == name


@pytest.mark.slow
@pytest.mark.parametrize('sampler', [
    'ancestral', 'first_hitting', 'tau_leaping', {'name': 'entropy_bounded', 'bound': 0.5},
    {'name': 'remasking', 'amount': {'name': 'capped', 'most': 0.2}, 'focus': 'on_the_unsure'}])
def test_every_sampler_can_be_asked_for(first, sampler):
    generator, config = load_generator(first, sampler=sampler, temperature=0.5)
    task, codes = Task.parse('->text'), np.zeros((2, 16 + 12), np.int32)
    whole = generator.trajectory(task, codes)
    assert config.diffusion.sampler.temperature == 0.5
    text = generator.layout.slice('text')
    assert (whole[0, :, text] == generator.layout.mask_ids[text]).all()
    assert (whole[-1, :, text] < generator.layout.mask_ids[text]).all()


def test_settings_of_the_former_sampler_stay_where_the_new_one_has_them():
    config = _config()
    change_sampler(config, {'sampler': 'first_hitting'})
    section = config.diffusion.sampler
    assert 'steps' not in section and (section.temperature, section.batch_size) == (1.0, 4)
    with pytest.raises(UserError, match='"first_hitting" has temperature, batch_size'):
        change_sampler(config, {'steps': 3})
    with pytest.raises(UserError, match='Did you mean "remasking"'):
        change_sampler(config, {'sampler': 'remaskin'})
    with pytest.raises(UserError, match='neither a name nor a mapping'):
        change_sampler(config, {'sampler': 3})


@pytest.mark.parametrize(('changes', 'said'), [
    ({'process': {'name': 'unifrm'}}, 'Did you mean "uniform"'),
    ({'process': {'name': 'uniform'}}, 'choose one of ancestral, tau_leaping'),
    ({'process': {'widht': 2.0}}, 'diffusion.process.widht'),
    ({'process': {'schedule': 'cosin'}}, 'Did you mean "cosine"'),
    ({'sampler': {'guidance': -1.0}}, 'diffusion.sampler.guidance is -1'),
    ({'sampler': {'guidance': 2.0, 'guidance_interval': (0.9, 0.1)}}, 'low end first'),
    ({'sampler': {'guidance': 2.0, 'guidance_schedule': 'linaer'}}, 'Did you mean "linear"'),
])
def test_mistakes_are_found_before_anything_is_written(changes, said):
    config = _config()
    for section, values in changes.items():
        config.diffusion[section].update(values)
    with pytest.raises(UserError, match=said):
        check_config(config)


def test_code_distances_need_few_codes_of_one_level():
    config = _config(process={'name': 'code_distance'}, sampler={'name': 'ancestral'})
    check_config(config)
    config.tokenizers.image.quantizer = ConfigDict({
        'name': 'residual', 'copies': 2, 'quantizer': {'name': 'finite_scalar', 'scalar_levels': (5, 5)}})
    with pytest.raises(UserError, match=r'of image are not to be had.*"uniform"'):
        check_config(config)
    config.tokenizers.image.quantizer = ConfigDict({
        'name': 'multi_scale', 'grids': ((1, 1), (4, 4)), 'quantizer': {'name': 'finite_scalar'}})
    with pytest.raises(UserError, match=r'grid of \(17,\).*multi_scale'):
        check_config(config)


def test_guidance_needs_a_model_that_knows_the_lack_of_the_condition():
    config = _config(sampler={'guidance': 2.0})
    check_guidance(config, [Task.parse('text->image'), Task.parse('->image')])
    config.diffusion.tasks = ConfigDict({'text->image': 1.0})
    with pytest.raises(UserError, match=r'image without text.*add "->image"'):
        check_guidance(config, [Task.parse('text->image')])
    config.diffusion.tasks = ConfigDict({'->image': 1.0})
    with pytest.raises(UserError, match='unconditional'):
        check_guidance(config, [])


def test_a_workdir_from_before_there_was_a_choice_is_read(tmp_path):
    config = _config()
    config.diffusion.process = ConfigDict({'schedule': 'linear'})
    config.diffusion.sampler = ConfigDict({'name': 'ordered', 'order': 'random', 'steps': 16, 'temperature': 0.5,
                                           'choice_temperature': 0.0, 'guidance': 1.0, 'batch_size': 8})
    save_config(tmp_path, config)
    check_config(config)
