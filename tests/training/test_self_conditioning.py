"""Self-conditioning of a Gaussian process over code vectors: what the network sees in training and in sampling."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from small_world import small_world

from vqdit.diffusion.clock import TaskMixture
from vqdit.diffusion.few_step import SelfConditioned
from vqdit.diffusion.samplers import sample_keys
from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout
from vqdit.tokenizers.text import WordTokenizer
from vqdit.training.factory import build_model
from vqdit.training.gaussian import build_space, build_vector_sampler, gaussian_loss
from vqdit.training.pipeline import check_config

WORDS = {'question': WordTokenizer(('red', 'green'), 3), 'answer': WordTokenizer(('yes', 'no'), 2)}
LAYOUT = TokenLayout({name: tokenizer.spec for name, tokenizer in WORDS.items()})


def _config(**process) -> ConfigDict:
    config = small_world()
    config.diffusion.process = ConfigDict({'name': 'gaussian', 'self_conditioning': 1.0} | process)
    config.diffusion.sampler = ConfigDict({'name': 'ddim', 'steps': 3, 'batch_size': 8})
    return config


def _recording(calls):
    """A network that is sure of code 2, and of code 3 once it has seen an estimate."""
    def apply(variables, seen, clock):
        jax.debug.callback(lambda x: calls.append(np.asarray(x)), seen, ordered=True)
        told = jnp.any(seen[..., 2:] != 0, axis=(1, 2)).astype(jnp.int32)
        sure = 50.0 * jax.nn.one_hot(2 + told, 4)[:, None]
        return {name: jnp.broadcast_to(sure, (len(seen), spec.length, 4)) for name, spec in LAYOUT.specs.items()}
    return SimpleNamespace(apply=apply, layout=LAYOUT)


def test_training_shows_the_network_its_own_first_estimate_of_generated_tokens():
    config, calls = _config(), []
    space = build_space(config, LAYOUT, WORDS)
    loss = gaussian_loss(_recording(calls), space, TaskMixture({'question->answer': 1.0}, LAYOUT), config)
    batch = {'codes': np.full((8, 5), 2, np.int32)}
    value, _ = jax.jit(loss)({}, {}, batch, jax.random.key(0))
    jax.effects_barrier()
    first, second = calls
    assert first.shape == (8, 5, 4) and not first[..., 2:].any()
    np.testing.assert_array_equal(first[..., :2], second[..., :2])
    np.testing.assert_allclose(second[:, 3:, 2:], np.asarray(space.vectors.of(jnp.full((8, 5), 2)))[:, 3:], atol=1e-5)
    assert not second[:, :3, 2:].any(), 'what is given needs no estimate'
    # The second answer is sure of another code.
    assert float(value) == pytest.approx(25.0, rel=1e-3)


def test_samples_hand_the_estimate_on():
    config, calls = _config(), []
    space = build_space(config, LAYOUT, WORDS)
    sampler = build_vector_sampler(config, space)
    assert isinstance(sampler.solver, SelfConditioned)
    roles = jnp.asarray(np.broadcast_to(np.repeat([0, 2], [3, 2]), (4, 5)))
    denoiser = lambda seen, clock: _recording(calls).apply({}, seen, clock)
    run = jax.jit(lambda keys: sampler(keys, denoiser, jnp.zeros((4, 5), jnp.int32), roles, LAYOUT))
    made = np.asarray(run(sample_keys(jax.random.key(0), jnp.arange(4))))
    assert (made[:, 3:] == 3).all() and (made[:, :3] == 0).all()
    # Without it, as in a likelihood, the network sees none.
    assert not np.asarray(space.seen(jnp.ones((4, 5, 2)), jnp.ones((4, 5, 2)), roles, jnp.zeros((4, 5))))[..., 2:].any()


def test_the_network_is_twice_as_wide_at_its_entrance_and_mistakes_are_refused():
    config = _config()
    assert build_model(config, LAYOUT).channels == 2 * build_model(_config(self_conditioning=0.0), LAYOUT).channels
    for process, said in (({'self_conditioning': 1.5}, r'self_conditioning is 1.5; it is a share'),
                          ({'prediction': 'velocity', 'weighting': 'velocity'}, 'prediction to it')):
        with pytest.raises(UserError, match=said):
            check_config(_config(**process))
