"""Few-step models of images: their losses against float64 numpy, their samples on normal data, whose flow is linear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.diffusion.few_step import Consistency, MeanFlow, Renoised, Shortcut, Strided, doubled, sample_by_consistency
from vqdit.diffusion.samplers import DDIM, Heun, sample_keys, solve
from vqdit.errors import UserError

DEVIATION, BATCH = 0.7, 32
LATENTS = np.random.default_rng(0).normal(size=(BATCH, 2, 2, 1)).astype(np.float32)


def _seen(process, slope, share=None):
    """The loss of a network that answers `slope` z, its parts, and the noisy latents and the levels of every call."""
    calls = []

    def network(z, told):
        jax.debug.callback(lambda *given: calls.append([np.asarray(part, np.float64) for part in given]), z, told,
                           ordered=True)
        out = slope * z
        return out if share is None else jnp.concatenate([out, jnp.full_like(out, share)], axis=-1)

    value, parts = jax.jit(lambda key: process.loss(key, network, jnp.asarray(LATENTS)))(jax.random.key(1))
    jax.effects_barrier()
    return float(value), {name: float(part) for name, part in parts.items()}, calls


def test_without_strides_both_are_flow_matching():
    for process, share in ((MeanFlow(flow_share=1.0, power=0.0), None), (Shortcut(flow_share=1.0), 7.0)):
        value, parts, calls = _seen(process, 0.5, share)
        z, told = calls[-1]
        amount = told[:, 0].reshape(-1, 1, 1, 1)
        noise = (z - amount * LATENTS) / (1 - amount)
        assert not told[:, 1].any() and abs(noise.std() - 1) < 0.2
        wanted = np.mean((0.5 * z - (LATENTS - noise)) ** 2)
        assert parts['velocity_error'] == pytest.approx(wanted, rel=1e-4)
        assert value == pytest.approx(wanted * (4 if isinstance(process, MeanFlow) else 1), rel=1e-4)


def test_strides_of_mean_flow_end_where_they_say():
    process = MeanFlow(flow_share=0.25)
    r, t = (np.asarray(x) for x in jax.jit(lambda: process._ends(jax.random.key(0), 4000))())
    assert (r <= t).all() and (r > 0).all() and (t < 1).all() and abs((r == t).mean() - 0.25) < 0.03
    np.testing.assert_allclose(process.told(t, r), np.stack([1 - t, t - r], axis=1), atol=1e-7)
    np.testing.assert_array_equal(process.told(t)[:, 1], 0)


def test_shortcuts_are_taught_where_they_are_used():
    process = Shortcut(finest=8, flow_share=0.5)
    t, half = (np.asarray(x, np.float64) for x in jax.jit(lambda: process._strides(jax.random.key(0), 4000))())
    taught = half > 0
    strides = 2 * half[taught]
    assert set(strides) == {1.0, 0.5, 0.25, 0.125} and abs(taught.mean() - 0.5) < 0.03
    assert not (t[taught] % strides).any() and (t[taught] >= strides).all()
    for steps in (1, 2, 8):
        grid = process.grid(steps)
        assert set(map(float, process.told(grid[:-1], grid[1:])[:, 1])) == {1 / steps}
    half_of_the_finest = process.told(jnp.float32(0.5), jnp.float32(0.5 - 1 / 16))
    assert half_of_the_finest.tolist() == [0.5, 0.0]


@pytest.mark.parametrize(('process', 'steps'), [(MeanFlow(), 1), (Shortcut(finest=4), 4)])
def test_an_exact_network_ends_where_the_flow_does_in_any_number_of_steps(process, steps):
    """x = deviation * noise; SiT's sampler, told nothing of the end, is far off in one step."""
    size = lambda t: jnp.sqrt(((1 - t) * DEVIATION) ** 2 + t**2)
    slope = jax.vmap(jax.grad(lambda t: jnp.log(size(t))))

    def model(z, t, s=None):
        told = process.told(t, s)
        start, end = 1 - told[0], 1 - told[0] - told[1]
        average = (1 - size(end) / size(start)) / jnp.maximum(told[1], 1e-12)
        out = -jnp.where(told[1] > 0, average, slope(start[None])[0]) * z
        return process.read(out, z, t)[0]

    with jax.enable_x64(True):
        z = jnp.asarray(LATENTS, jnp.float64)
        keys, grid = sample_keys(jax.random.key(0), jnp.arange(BATCH)), jnp.asarray(process.grid(steps), jnp.float64)
        run = jax.jit(lambda solver: solve(solver, model, process.path, z, grid, keys), static_argnums=0)
        np.testing.assert_allclose(run(Strided(DDIM())), DEVIATION * z, atol=1e-12)
        assert np.abs(run(Heun()) - DEVIATION * z).max() > 1e-3


def test_the_loss_of_consistency_is_the_distance_of_neighbours():
    process = Consistency(levels=10, deviation=0.5)
    value, parts, calls = _seen(process, 0.3)
    (z, told), (z_s, told_s) = calls
    ratios = np.linspace(0.002 ** (1 / 7), 80 ** (1 / 7), 11) ** 7
    ratio, ratio_s = np.exp(told / 250), np.exp(told_s / 250)
    place = np.abs(np.log(ratios)[None] - np.log(ratio)[:, None]).argmin(1)
    np.testing.assert_allclose(ratio, ratios[place], rtol=1e-3)
    np.testing.assert_allclose(ratio_s, ratios[place - 1], rtol=1e-3)

    def clean(z, ratio):
        ratio, beyond = (x.reshape(-1, 1, 1, 1) for x in (ratio, ratio - 0.002))
        return (0.25 / (beyond**2 + 0.25) * z * (1 + ratio) + 0.5 * beyond / np.sqrt(ratio**2 + 0.25) * 0.3 * z)

    gap = np.sqrt(((clean(z, ratio) - clean(z_s, ratio_s)) ** 2).sum((1, 2, 3)))
    offset = 5.4e-4 * 2
    distance = np.sqrt(gap**2 + offset**2) - offset
    assert parts['distance'] == pytest.approx(distance.mean(), rel=1e-2)
    assert value == pytest.approx(np.mean(distance / (ratio - ratio_s)), rel=1e-2)


def test_the_levels_of_consistency_follow_the_training_step():
    process, loss = Consistency(levels=doubled(8, 10, 20)), {}
    network, latents = lambda z, told: 0.3 * z, jnp.asarray(LATENTS)
    at = jax.jit(lambda step: process.at(step).loss(jax.random.key(1), network, latents)[0])
    for levels in (10, 20):
        loss[levels] = _seen(Consistency(levels=levels), 0.3)[0]
    np.testing.assert_allclose([at(jnp.int32(step)) for step in (0, 3, 4, 7)],
                               [loss[levels] for levels in (10, 10, 20, 20)], rtol=1e-5)
    assert abs(loss[10] / loss[20] - 1) > 0.01


def test_consistency_is_the_identity_near_the_data_and_samples_by_new_noise():
    process, z = Consistency(), jnp.asarray(LATENTS)
    lowest = jnp.float32(0.002 / 1.002)
    np.testing.assert_allclose(process.read(100.0 + z, z, lowest)[0], z * 1.002, atol=5e-3)
    grid = process.grid(2)
    assert grid.shape == (3,) and float(grid[0]) == pytest.approx(80 / 81, rel=1e-3) and grid[-1] == 0
    function = lambda z, t: process.read(0.5 * z, z, t)[0]
    keys = sample_keys(jax.random.key(0), jnp.arange(BATCH))
    run = jax.jit(lambda grid: solve(Renoised(), function, process.path, z, grid, keys))
    found = run(grid)
    by_hand = function(z, grid[0])
    noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 0), z.shape[1:]))(keys)
    np.testing.assert_allclose(found, function((1 - grid[1]) * by_hand + grid[1] * noise, grid[1]), rtol=1e-5)
    other = jax.jit(lambda grid: sample_by_consistency(lambda z, t: function(z, t[0]), process.path, z, grid, keys))
    np.testing.assert_allclose(run(process.grid(1)), other(grid[:1]), rtol=1e-5)


@pytest.mark.parametrize(('make', 'said'), [
    (lambda: MeanFlow(flow_share=1.5), 'share of flow matching'), (lambda: Shortcut(finest=100), 'power of two'),
    (lambda: Shortcut(finest=8).grid(3), 'cannot take 3 steps, but 1, 2, 4 ... 8'),
    (lambda: Shortcut(finest=8).grid(16), 'cannot take 16'), (lambda: Consistency(levels=1), '2 levels'),
    (lambda: doubled(9, 1), 'must start at 2'),
    (lambda: doubled(9, 20, 10), 'from 20 to 10'),
    (lambda: Consistency().grid(0), 'at least 1 step'), (lambda: MeanFlow().grid(0), 'at least 1 step')])
def test_unsound_settings_are_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


def test_no_key_is_used_twice():
    network = lambda z, told: 0.5 * z
    with jax.debug_key_reuse(True):
        losses = lambda keys: [process.loss(key, network, jnp.asarray(LATENTS))[0]
                               for key, process in zip(keys, (MeanFlow(), Shortcut(), Consistency()))]
        jax.block_until_ready(jax.jit(losses)(jax.random.split(jax.random.key(0), 3)))
