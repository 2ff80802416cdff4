"""A Gaussian process over code vectors from a config: its parts, its loss, and a shrunk run from end to end."""

import functools

import jax
import numpy as np
import pytest
from flax.core import FrozenDict
from ml_collections import ConfigDict
from small_world import small_world

from vqdit.diffusion.clock import Task, TaskMixture
from vqdit.diffusion.gaussian import Exploding
from vqdit.diffusion.samplers import DPMSolverPlusPlus
from vqdit.errors import VqditError
from vqdit.generation.generator import Generator
from vqdit.models.multimodal import MultimodalDiT
from vqdit.tokenizers.spec import TokenLayout
from vqdit.tokenizers.text import WordTokenizer
from vqdit.training.gaussian import build_gaussian, build_solver, build_space, build_vector_sampler, gaussian_loss
from vqdit.training.pipeline import check_config, load_generator, train

WORDS = {'question': WordTokenizer(('red', 'green', 'blue'), 3), 'answer': WordTokenizer(('yes', 'no'), 2)}
LAYOUT = TokenLayout({name: tokenizer.spec for name, tokenizer in WORDS.items()})
TASKS = {'question->answer': 1.0, '->question,answer': 1.0}


def _config(process: dict | None = None, sampler: dict | None = None) -> ConfigDict:
    config = small_world()
    config.diffusion.process = ConfigDict({'name': 'gaussian', 'path': 'flow', 'prediction': 'codes'} | (process or {}))
    config.diffusion.sampler = ConfigDict(
        {'name': 'dpm_solver', 'order': 2, 'steps': 3, 'guidance': 2.0, 'batch_size': 8} | (sampler or {}))
    return config


@functools.cache
def _params(model: MultimodalDiT) -> dict:
    return jax.jit(model.init)(jax.random.key(0), *model.blank(1))['params']


def test_parts_are_built_with_their_settings():
    config = _config({'path': {'name': 'exploding', 'largest': 40.0}, 'weighting': {'name': 'min_snr', 'limit': 3.0},
                      'prediction': 'preconditioned', 'times': {'name': 'log_normal', 'mean': -0.4}},
                     {'grid': {'name': 'karras', 'largest': 40.0}})
    check_config(config)
    assert build_gaussian(config).path == Exploding(40.0)
    solver, grid = build_solver(config)
    assert solver == DPMSolverPlusPlus(2) and grid.shape == (4,) and grid[0] == 1 and grid[-1] == 0


@pytest.mark.parametrize(('process', 'sampler', 'said'), [
    ({'path': 'flwo'}, {}, 'path "flwo".*Did you mean "flow"'),
    ({'path': {'name': 'flow', 'power': 2}}, {}, 'power'),
    ({'weigthing': 'simple'}, {}, 'Did you mean "weighting"'),
    ({'prediction': 'velocity', 'weighting': 'cross_entropy'}, {}, 'cross_entropy" is of codes'),
    ({'prediction': 'speed'}, {}, 'prediction "speed"'),
    ({'times': 'normal'}, {}, 'log_normal'),
    ({}, {'name': 'ordered'}, 'diffusion.sampler "ordered"'),
    ({}, {'order': 4}, 'order 4'),
    ({}, {'steps': 0}, 'at least 1 step'),
    ({}, {'grid': 'karas'}, 'Did you mean "karras"'),
])
def test_mistakes_are_found_before_anything_is_written(process, sampler, said):
    with pytest.raises(VqditError, match=said):
        check_config(_config(process, sampler))


def test_codes_of_scales_have_no_vectors_to_noise():
    config = _config()
    config.tokenizers.image.quantizer = ConfigDict({
        'name': 'multi_scale', 'grids': ((1, 1), (4, 4)), 'quantizer': {'name': 'finite_scalar'}})
    with pytest.raises(VqditError, match=r'grid of \(17,\).*multi_scale'):
        check_config(config)


@pytest.mark.parametrize('process', [
    {}, {'weighting': 'velocity'}, {'prediction': 'velocity', 'weighting': 'velocity', 'times': 'logit_normal'}])
def test_the_loss_of_an_ignorant_model_is_known(process):
    """Heads that start at zero: log K nats, the variance of the vectors, or the mean square of the velocity."""
    config = _config(process)
    space = build_space(config, LAYOUT, WORDS)
    model = MultimodalDiT(LAYOUT, FrozenDict({}), width=8, depth=1, heads=2, channels=space.vectors.channels,
                          answers_codes=space.logits)
    codes = np.stack([np.concatenate([[a, b, c], [d, (d + 1) % 4]]) for a in range(5) for b in range(5)
                      for c in range(5) for d in range(4)]).astype(np.int32)
    loss = gaussian_loss(model, space, TaskMixture({'->question,answer': 1.0}, LAYOUT), config)
    step = jax.jit(jax.value_and_grad(lambda params: loss(params, {}, {'codes': codes}, jax.random.key(0)),
                                      has_aux=True))
    (value, (_, metrics)), gradients = step(_params(model))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert value == pytest.approx(np.mean(list(metrics.values())), rel=1e-5)
    if not process:
        assert metrics == pytest.approx({'question_nats': np.log(5), 'answer_nats': np.log(4)}, rel=1e-5)
    elif 'prediction' in process:
        # E |noise - x|^2 = C + |x|^2 = 2 C for bits.
        assert metrics == pytest.approx({'question_error': 6.0, 'answer_error': 4.0}, rel=0.2)
    else:
        # The velocity's error is (guess - x) / t, and the mean of 1 / t^2 is not to be met: finite and above the least.
        assert metrics['answer_error'] > 2.0


def test_a_learned_uncertainty_starts_at_no_weight_and_learns_its_level():
    config = _config({'uncertainty': 4})
    space = build_space(config, LAYOUT, WORDS)
    model = MultimodalDiT(LAYOUT, FrozenDict({}), width=8, depth=1, heads=2, channels=space.vectors.channels)
    params = _params(model)
    batch = {'codes': np.zeros((16, LAYOUT.length), np.int32)}
    mixture = TaskMixture({'->question,answer': 1.0}, LAYOUT)
    loss = jax.jit(jax.value_and_grad(
        lambda params: gaussian_loss(model, space, mixture, config)(params, {}, batch, jax.random.key(0))[0]))
    plain, slopes = loss(params | {'log_variances': np.zeros(4, np.float32)})
    assert plain == pytest.approx((np.log(5) + np.log(4)) / 2, rel=1e-5)
    # An error above 1 raises its logarithm.
    assert (np.asarray(slopes['log_variances']) < 0).all()


def test_samples_belong_to_their_index_and_guidance_is_felt():
    config = _config()
    space = build_space(config, LAYOUT, WORDS)
    model = MultimodalDiT(LAYOUT, FrozenDict({}), width=8, depth=1, heads=2, channels=space.vectors.channels)
    params = _params(model)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: np.asarray(x) + 0.5 * rng.standard_normal(x.shape, np.float32), params)
    sampler, codes = build_vector_sampler(config, space), np.zeros((6, LAYOUT.length), np.int32)
    make = lambda guidance, size: Generator(model, params, WORDS, sampler, guidance, batch_size=size)
    whole = make(1.0, 6).generate_codes(Task.parse('question->answer'), codes, seed=1)
    np.testing.assert_array_equal(make(1.0, 2).generate_codes(Task.parse('question->answer'), codes, seed=1), whole)
    np.testing.assert_array_equal(whole[:, LAYOUT.slice('question')], 0)
    assert (whole[:, LAYOUT.slice('answer')] < 4).all() and len(np.unique(whole, axis=0)) > 1
    assert (make(30.0, 6).generate_codes(Task.parse('question->answer'), codes, seed=1) != whole).any()


@pytest.mark.slow
def test_a_run_from_end_to_end(tmp_path):
    """Tokenizer, tokens, a few steps of the process over its code vectors; samples from the workdir."""
    train(_config({'uncertainty': 8}), tmp_path)
    generator, _ = load_generator(tmp_path)
    made = generator.generate(Task.parse('text->image'), {'text': ['a small red circle at the top left']}, 2)['image']
    assert made.shape == (2, 32, 32, 3) and made.dtype == np.uint8
