"""The same numbers on one device and on eight."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import FrozenDict
from ml_collections import ConfigDict

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import TaskMixture
from vqdit.models.multimodal import MultimodalDiT
from vqdit.tokenizers.spec import TokenLayout, TokenSpec
from vqdit.training.compilation import compile_step
from vqdit.training.defaults import defaults
from vqdit.training.objective import diffusion_loss
from vqdit.training.sharding import AXES, make_mesh, place_batch, replicated, tree_shardings
from vqdit.training.state import create_state
from vqdit.training.steps import make_step

LAYOUT = TokenLayout({'image': TokenSpec((4, 4), 6), 'text': TokenSpec((4,), 8)})
STEPS = 20


def _train(**axes: int):
    mesh = make_mesh(ConfigDict({axis: axes.get(axis, 1) for axis in AXES}))
    model = MultimodalDiT(LAYOUT, FrozenDict({'image': 2}), width=16, depth=2, heads=2)
    optimizer = optax.adamw(1e-3, eps=1e-4)
    mixture = TaskMixture({'text->image': 1.0, '->image,text': 1.0}, LAYOUT)
    codes = np.random.default_rng(0).integers(0, 6, (16, LAYOUT.length)).astype(np.int32)
    init = lambda: create_state(model.init(jax.random.key(0), codes[:1], jnp.zeros((1, LAYOUT.length))), optimizer)
    shardings = tree_shardings(jax.eval_shape(init), defaults().sharding_rules, mesh)
    state = jax.jit(init, out_shardings=shardings)()
    step = make_step(diffusion_loss(model, Absorbing(), mixture), optimizer, 0.99)
    root, batch = jax.device_put(jax.random.key(1), replicated(mesh)), place_batch({'codes': codes}, mesh)
    compiled, cost = compile_step(step, mesh, state, batch, root)
    for _ in range(STEPS):
        state, metrics = compiled(state, batch, root)
        jax.block_until_ready(metrics)
    return jax.device_get(state.params), shardings, cost


@functools.cache
def _alone():
    return _train()[0]


@pytest.mark.parametrize('axes', [
    {'fsdp': 2, 'sequence': 2, 'tensor': 2},
    pytest.param({'data': 4, 'sequence': 2}, marks=pytest.mark.slow),
    pytest.param({'data': 2, 'fsdp': 2, 'tensor': 2}, marks=pytest.mark.slow)])
def test_parameters_after_twenty_steps_do_not_depend_on_the_mesh(axes):
    params, shardings, cost = _train(**axes)
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(_alone()))
    worst = max(float(np.abs(a - b).max()) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(_alone())))
    assert worst / scale < 1e-6
    for axis in set(axes) & {'fsdp', 'tensor'}:
        assert any(axis in str(place.spec) for place in jax.tree.leaves(shardings.params))
    assert cost.devices == 8 and cost.traffic.links > 0
