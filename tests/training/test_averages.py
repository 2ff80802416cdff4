"""Power averages from a config: kept by the step, reconstructed at sampling, and guidance by one of them."""

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_world import small_world

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import Task
from vqdit.diffusion.guidance import Scale
from vqdit.diffusion.samplers import Ordered
from vqdit.errors import UserError
from vqdit.generation.generator import Generator, Pair, without_guidance
from vqdit.tokenizers.spec import TokenLayout
from vqdit.tokenizers.text import WordTokenizer
from vqdit.training.averages import Kept, check_averages, decays, restored_parameters, sampling_parameters
from vqdit.training.checkpoint_reader import CheckpointReader
from vqdit.training.ema import Average, exponent_of, weights_of
from vqdit.training.pipeline import check_config, load_generator, train
from vqdit.training.state import create_state
from vqdit.training.steps import make_step

STEPS, DEVIATIONS = 20, (0.05, 0.1)


def _config(**sampler):
    config = small_world()
    config.diffusion.training.power_averages = DEVIATIONS
    config.diffusion.sampler.update(sampler)
    return config


def _trained(config):
    """The states after every step, and the parameters [steps, 2] in float64."""
    optimizer = optax.sgd(0.3)
    loss = lambda params, codebook, batch, key: (
        jnp.sum(params['w'] * jax.random.normal(key, (2,))), (codebook, {}))
    step = jax.jit(make_step(loss, optimizer, 0.9, decays=decays(config)))
    state = create_state({'params': {'w': jnp.array([1.0, -2.0])}}, optimizer, len(decays(config)))
    states = []
    for _ in range(STEPS):
        state, _ = step(state, {}, jax.random.key(0))
        states.append(state)
    return states, np.stack([np.asarray(state.params['w'], np.float64) for state in states])


@pytest.fixture(scope='module')
def trained():
    return _trained(_config())


def test_the_step_keeps_the_averages_that_the_config_asks_for(trained):
    states, walk = trained
    for deviation, average in zip(DEVIATIONS, states[-1].averages, strict=True):
        weights = weights_of(Average(exponent_of(deviation), STEPS), STEPS)
        np.testing.assert_allclose(average['w'], weights @ walk, atol=1e-6)
    assert create_state({'params': {'w': jnp.zeros(1)}}, optax.sgd(0.1)).averages == (), 'none unless asked for'


def test_samples_are_drawn_with_the_average_that_is_asked_for(trained):
    states, walk = trained
    kept = [Kept(n, states[n - 1].averages) for n in range(2, STEPS + 1, 2)]
    assert sampling_parameters(_config(), 'usual', kept) == 'usual'
    # One that was tracked comes back as it was, from the last step alone; one that was not is near the true average.
    found = sampling_parameters(_config(average=0.1), 'usual', kept[-1:])
    np.testing.assert_allclose(found['w'], states[-1].averages[1]['w'], atol=1e-6)
    found = sampling_parameters(_config(average=0.07), 'usual', kept)
    truth = weights_of(Average(exponent_of(0.07), STEPS), STEPS) @ walk
    np.testing.assert_allclose(found['w'], truth, atol=1e-2 * np.abs(walk).max())
    pair = sampling_parameters(_config(guidance_average=0.1, guidance=2.0), 'usual', kept)
    assert isinstance(pair, Pair) and without_guidance(pair) == 'usual' == without_guidance('usual')
    np.testing.assert_allclose(pair.weaker['w'], states[-1].averages[1]['w'], atol=1e-6)


def test_checkpoints_of_other_steps_are_read_when_they_are_needed(trained):
    states, _ = trained
    read = []
    Reader = namedtuple('Reader', 'steps restore')
    restore = lambda trees, step: read.append(step) or namedtuple('Found', 'trees')({'state': states[step - 1]})
    reader = Reader([5, 10, STEPS], restore)
    assert restored_parameters(_config(), reader, None, states[-1]) is states[-1].ema and not read
    restored_parameters(_config(average=0.07), reader, None, states[-1])
    assert read == [5, 10]


@pytest.mark.parametrize(('changes', 'averages', 'said'), [
    ({'average': 0.1}, (), r'deviation 0.1, but training keeps none; set diffusion.training.power_averages'),
    ({'guidance_average': 0.1}, (), 'keeps none'), ({}, (0.5,), 'deviation 0.5 .*at most 0.288'),
    ({'average': 0.4}, (0.1,), 'deviation 0.4'),
    ({'guidance_average': 0.1}, (0.1,), 'guidance_average has no effect at diffusion.sampler.guidance 1')])
def test_what_cannot_be_is_refused_before_anything_is_written(changes, averages, said):
    config = _config(**changes)
    config.diffusion.training.power_averages = averages
    for check in (check_averages, check_config):
        with pytest.raises(UserError, match=said):
            check(config)


def test_autoguidance_compares_two_parameter_sets_under_the_same_conditions():
    """One word of four: probabilities in proportion to strong^2 / weak."""
    words = {'text': WordTokenizer(('a', 'b'), 1)}
    layout = TokenLayout({'text': words['text'].spec})
    model = namedtuple('Model', 'layout apply')(
        layout, lambda variables, codes, clock: {'text': jnp.broadcast_to(variables['params'][None, None], (
            len(codes), 1, layout.specs['text'].num_codes))})
    strong, weak = np.log([0.1, 0.2, 0.3, 0.4]), np.log([0.4, 0.2, 0.2, 0.2])
    pair = Pair(jnp.asarray(strong, jnp.float32), jnp.asarray(weak, jnp.float32))
    generator = Generator(model, pair, words, Ordered(1, process=Absorbing()), Scale(2.0), batch_size=4000)
    drawn = generator.generate_codes(Task.parse('->text'), np.zeros((4000, 1), np.int32))
    law = np.exp(2 * strong - weak)
    np.testing.assert_allclose(np.bincount(drawn[:, 0], minlength=4) / 4000, law / law.sum(), atol=0.03)


@pytest.mark.slow
def test_a_run_keeps_them_in_its_checkpoints_and_samples_with_them(tmp_path):
    config = _config(steps=2, batch_size=8)
    config.diffusion.training.steps = 4
    config.checkpoints.update(every=2, keep=3)
    train(config, tmp_path)
    assert CheckpointReader(tmp_path / 'diffusion' / 'checkpoints').steps == [2, 4]
    usual, _ = load_generator(tmp_path)
    generator, _ = load_generator(tmp_path, average=0.07, guidance_average=0.1, guidance=2.0)
    assert isinstance(generator.params, Pair)
    assert jax.tree.structure(generator.params.params) == jax.tree.structure(usual.params)
    made = generator.generate(Task.parse('text->image'), {'text': ['a small red circle at the top left']}, 2)['image']
    assert made.shape == (2, 32, 32, 3)
