import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import FrozenDict

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import GENERATED, TaskMixture
from vqdit.diffusion.schedules import SCHEDULES
from vqdit.errors import UserError
from vqdit.models.multimodal import MultimodalDiT
from vqdit.tokenizers.spec import TokenLayout, TokenSpec
from vqdit.training.objective import diffusion_loss
from vqdit.training.state import create_state
from vqdit.training.steps import make_step

LAYOUT = TokenLayout({'image': TokenSpec((2, 2), 8), 'text': TokenSpec((3,), 5)})
MODEL = MultimodalDiT(LAYOUT, FrozenDict({}), width=8, depth=1, heads=2)
TASKS = {'image->text': 1.0, 'text->image': 1.0, '->image,text': 2.0}
KEY = jax.random.key(7)
CODES = np.random.default_rng(0).integers(0, 5, (16, LAYOUT.length)).astype(np.int32)


class Guess:
    """A model that looks at nothing but its parameters."""

    layout = LAYOUT

    def apply(self, variables, codes, clock):
        return {name: jnp.broadcast_to(row[None, None], (len(codes), LAYOUT.specs[name].length, len(row)))
                for name, row in variables['params'].items()}


@functools.cache
def _params():
    """Heads start at zero, so that every code has the same probability."""
    codes = jnp.zeros((1, LAYOUT.length), jnp.int32)
    return jax.jit(MODEL.init)(jax.random.key(0), codes, jnp.zeros(codes.shape))['params']


@functools.cache
def _loss(weighting='bound', only=''):
    tasks = {only: 1.0} if only else TASKS
    loss = diffusion_loss(MODEL, Absorbing(), TaskMixture(tasks, LAYOUT), weighting)
    value, (_, metrics) = jax.jit(loss)(_params(), {}, {'codes': CODES}, KEY)
    return float(value), {name: float(metric) for name, metric in metrics.items()}


def _masked_share(tasks=TASKS):
    """The shares of the generated tokens of each modality that the loss masks, and the sums of their weights 1 / t."""
    draw, noise = jax.random.split(KEY)
    roles, clock = TaskMixture(tasks, LAYOUT).draw(draw, len(CODES))
    noisy = Absorbing().corrupt(noise, CODES, clock, LAYOUT.mask_ids)
    chosen = np.asarray((noisy == LAYOUT.mask_ids[None]) & (roles == GENERATED))
    generated, weights = np.asarray(roles == GENERATED), chosen / np.maximum(np.asarray(clock), 1e-3)
    parts = {name: (..., LAYOUT.slice(name)) for name in LAYOUT.specs}
    return {name: (chosen[p].sum() / generated[p].sum(), weights[p].sum() / generated[p].sum())
            for name, p in parts.items()}


def test_an_ignorant_model_pays_the_logarithm_of_the_codes():
    value, metrics = _loss()
    expected = {name: weight * np.log(LAYOUT.specs[name].num_codes) for name, (_, weight) in _masked_share().items()}
    assert metrics == pytest.approx({f'{name}_nats': nats for name, nats in expected.items()}, rel=1e-5)
    assert value == pytest.approx(np.mean(list(expected.values())), rel=1e-5)


def test_masked_weighting_counts_every_masked_token_once():
    value, metrics = _loss('masked')
    expected = [share * np.log(LAYOUT.specs[name].num_codes) for name, (share, _) in _masked_share().items()]
    assert value == pytest.approx(np.mean(expected), rel=1e-5)
    assert metrics == _loss()[1], 'the metrics stay bounds'


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('weighting', ['bound', 'masked'])
def test_loss_and_gradient_are_finite_on_every_schedule(schedule, weighting):
    params = {name: jnp.zeros(spec.num_codes) for name, spec in LAYOUT.specs.items()}
    loss = diffusion_loss(Guess(), Absorbing(SCHEDULES[schedule]()), TaskMixture(TASKS, LAYOUT), weighting)
    value, grads = jax.jit(jax.value_and_grad(lambda p: loss(p, {}, {'codes': CODES}, KEY)[0]))(params)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_a_modality_that_no_task_generates_has_no_loss():
    _, metrics = _loss(only='image->text')
    assert metrics['image_nats'] == 0.0 and metrics['text_nats'] > 0.0


def test_a_hundred_steps_run_the_same_program():
    optimizer = optax.sgd(0.1)
    loss = diffusion_loss(MODEL, Absorbing(), TaskMixture(TASKS, LAYOUT))
    step, state = jax.jit(make_step(loss, optimizer, 0.9)), create_state({'params': _params()}, optimizer)
    for number in range(100):
        state, metrics = step(state, {'codes': np.roll(CODES, number, axis=0)}, KEY)
    assert step._cache_size() == 1 and int(state.step) == 100 and np.isfinite(metrics['loss'])


def test_an_unknown_weighting_is_named():
    with pytest.raises(UserError, match='bound, masked'):
        diffusion_loss(MODEL, Absorbing(), TaskMixture(TASKS, LAYOUT), 'mask')
