"""Guidance in training on normal data: of one class with the deviation S, of all with the deviation L around it.

Both flows are linear, and so is the guided one: z_r = z_t (all(r) / all(t))^(1 - w) (one(r) / one(t))^w.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from normal_flow import average_velocity, pairs

from vqdit.diffusion.few_step import (
    MeanFlow,
    Shortcut,
    guide,
    guided_below,
    mean_flow_loss,
    mean_flow_target,
    shortcut_loss,
    stride,
)
from vqdit.diffusion.gaussian import Flow
from vqdit.diffusion.guidance import Interval, Scale

SMALL, LARGE, WEIGHT = 0.5, 1.2, 2.5
PATH, RNG = Flow(), np.random.default_rng(0)


def _size(deviation, t):
    return jnp.sqrt((PATH.alpha(t) * deviation) ** 2 + PATH.sigma(t) ** 2)


def _guided_size(t, weight):
    return _size(LARGE, t) ** (1.0 - weight) * _size(SMALL, t) ** weight


def _average(weight):
    """Under guidance: of the class alone at weight 1, of all at weight 0."""
    return average_velocity(lambda t: _guided_size(t, weight))


@pytest.mark.parametrize('mixed', [0.0, 0.6])
def test_the_average_of_the_guided_flow_is_its_own_target(mixed):
    """Under the velocity of the class, which single pairs have as their mean, and the target is linear in it."""
    with jax.enable_x64(True):
        z = jnp.asarray(RNG.normal(size=(4, 1)))
        t, r = jnp.asarray([[0.9, 0.8, 0.5, 0.7], [0.1, 0.0, 0.4, 0.7]])

        @jax.jit
        def target(z, r, t):
            guided = guide(Scale(WEIGHT), _average(WEIGHT), _average(0.0), mixed)(z, _average(1.0)(z, t, t), t)
            return mean_flow_target(_average(WEIGHT), z, guided, r, t)

        u, wanted = target(z, r, t)
        np.testing.assert_allclose(wanted, u, atol=1e-10)
        assert np.abs(u[:3] - _average(1.0)(z, r, t)[:3]).min() > 1e-2


def test_the_gradient_of_guided_mean_flow_vanishes_at_the_guided_flow_alone():
    """The mean over all pairs, by quadrature, of d loss / d factor of the average velocity."""
    with jax.enable_x64(True):
        x, noise, shares = pairs(SMALL)
        r, t = jnp.full(len(x), 0.2), jnp.full(len(x), 0.9)

        @partial(jax.jit, static_argnums=0)
        @partial(jax.grad, argnums=1)
        def slope(weight, factor):
            average = lambda z, r, t: factor * _average(weight)(z, r, t)
            losses = mean_flow_loss(average, PATH, x, noise, r, t, guide(Scale(WEIGHT), average, _average(0.0), 0.6))
            return jnp.sum(shares * losses)

        assert abs(float(slope(WEIGHT, 1.0))) < 1e-10 < 1e-3 < abs(float(slope(1.0, 1.0)))


def test_one_stride_samples_the_guided_flow():
    with jax.enable_x64(True):
        z, ones = jnp.asarray(RNG.normal(size=(4, 1))), jnp.ones(4)
        wanted = LARGE ** (1 - WEIGHT) * SMALL**WEIGHT * z
        np.testing.assert_allclose(stride(_average(WEIGHT), z, ones, 0 * ones), wanted, rtol=1e-12)


def test_the_shortest_strides_are_guided_and_no_others():
    """Two guided steps of Euler by hand where half strides are the shortest, the plain law elsewhere."""
    with jax.enable_x64(True):
        z, t = jnp.ones((2, 1)), jnp.full(2, 0.5)
        with_class, without = (lambda z, r, t, a=a: a * z for a in (3.0, 1.0))
        teacher = guided_below(0.2, Scale(2.0), with_class, without)
        np.testing.assert_allclose(teacher(z, t - jnp.asarray([0.1, 0.3]), t)[:, 0], [1 + 2 * (3 - 1), 3.0])
        d, clean = jnp.asarray([0.1, 0.25]), jnp.zeros((2, 1))
        zero = lambda z, r, t: jnp.zeros_like(z)
        losses = jax.jit(partial(shortcut_loss, zero, PATH, teacher=teacher))(clean, 2.0 * z, t, d)
        euler = lambda a, d: (a + a * (1 - d * a)) / 2  # of two half strides from z = 1
        np.testing.assert_allclose(losses, [euler(5.0, 0.1) ** 2, euler(3.0, 0.25) ** 2], rtol=1e-12)


def test_image_processes_guide_from_their_settings():
    """The network answers z times a number of its own under labels and without: the loss is that of the functions."""
    latents = jnp.asarray(RNG.normal(size=(8, 2, 2, 1)), jnp.float32)
    told_of = lambda slope: lambda z, told: slope * z * (1 + told[:, 1].reshape(-1, 1, 1, 1))

    def losses(process):
        loss = lambda key, other: process.loss(key, told_of(0.5), latents, told_of(other))[0]
        return jax.jit(lambda key: [loss(key, 0.5), loss(key, -0.3)])

    key = jax.random.key(1)
    same, guided = losses(MeanFlow(flow_share=1.0, power=0.0, guidance=Scale(3.0)))(key)
    plain, ignored = losses(MeanFlow(flow_share=1.0, power=0.0))(key)
    assert plain == ignored and abs(guided / same - 1) > 0.1
    outside, _ = losses(MeanFlow(flow_share=1.0, power=0.0, guidance=Interval(Scale(3.0), 0.0, 0.0)))(key)
    np.testing.assert_allclose(outside, plain, rtol=1e-6)
    same, guided = losses(Shortcut(finest=2, flow_share=0.0, guidance=Scale(3.0)))(key)
    plain, ignored = losses(Shortcut(finest=2, flow_share=0.0))(key)
    assert plain == ignored and abs(guided / same - 1) > 0.1
    np.testing.assert_allclose(same, plain, rtol=1e-6)
    with pytest.raises(ValueError, match='without its labels'):
        MeanFlow(guidance=Scale(2.0)).loss(key, told_of(0.5), latents)
