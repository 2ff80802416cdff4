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


@pytest.fixture(scope='module')
def params():
    """Heads start at zero, so that every code has the same probability."""
    codes = jnp.zeros((1, LAYOUT.length), jnp.int32)
    return jax.jit(MODEL.init)(jax.random.key(0), codes, jnp.zeros(codes.shape))['params']


def _loss(params, weighting='bound', process=None, tasks=TASKS):
    loss = diffusion_loss(MODEL, process or Absorbing(), TaskMixture(tasks, LAYOUT), weighting)
    value, (_, metrics) = jax.jit(loss)(params, {}, {'codes': CODES}, KEY)
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


def test_an_ignorant_model_pays_the_logarithm_of_the_codes(params):
    value, metrics = _loss(params)
    expected = {name: weight * np.log(LAYOUT.specs[name].num_codes) for name, (_, weight) in _masked_share().items()}
    assert metrics == pytest.approx({f'{name}_nats': nats for name, nats in expected.items()}, rel=1e-5)
    assert value == pytest.approx(np.mean(list(expected.values())), rel=1e-5)


def test_masked_weighting_counts_every_masked_token_once(params):
    value, metrics = _loss(params, 'masked')
    expected = [share * np.log(LAYOUT.specs[name].num_codes) for name, (share, _) in _masked_share().items()]
    assert value == pytest.approx(np.mean(expected), rel=1e-5)
    assert metrics == _loss(params)[1], 'the metrics stay bounds'


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('weighting', ['bound', 'masked'])
def test_loss_and_gradient_are_finite_on_every_schedule(params, schedule, weighting):
    loss = diffusion_loss(MODEL, Absorbing(SCHEDULES[schedule]()), TaskMixture(TASKS, LAYOUT), weighting)
    value, grads = jax.jit(jax.value_and_grad(lambda p: loss(p, {}, {'codes': CODES}, KEY)[0]))(params)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_a_modality_that_no_task_generates_has_no_loss(params):
    _, metrics = _loss(params, tasks={'image->text': 1.0})
    assert metrics['image_nats'] == 0.0 and metrics['text_nats'] > 0.0


def test_a_hundred_steps_run_the_same_program(params):
    optimizer = optax.sgd(0.1)
    loss = diffusion_loss(MODEL, Absorbing(), TaskMixture(TASKS, LAYOUT))
    step, state = jax.jit(make_step(loss, optimizer, 0.9)), create_state({'params': params}, optimizer)
    for number in range(100):
        state, _ = step(state, {'codes': np.roll(CODES, number, axis=0)}, KEY)
    assert step._cache_size() == 1 and int(state.step) == 100


def test_an_unknown_weighting_is_named():
    with pytest.raises(UserError, match='bound, masked'):
        diffusion_loss(MODEL, Absorbing(), TaskMixture(TASKS, LAYOUT), 'mask')
