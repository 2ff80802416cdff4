"""Transitions, posteriors and bounds of all categorical processes against brute force in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from scipy import stats
from scipy.linalg import expm

from vqdit.diffusion.categorical import (
    Absorbing,
    CodeDistance,
    MaskAndReplace,
    Uniform,
    as_plain,
    leave_one_out,
    plain,
    replace,
)
from vqdit.diffusion.schedules import Constant, Cosine, Geometric, Linear, Partial, Polynomial
from vqdit.errors import UserError

K = toy.CODES
BOOK = np.array([[0.0, 0.0], [0.3, 0.0], [1.0, 0.4]])
PARTIAL = Partial(Polynomial(2.0), 0.4)
PROCESSES = {
    'uniform': replace(Uniform(Cosine())),
    'hybrid': MaskAndReplace(Linear(), Uniform(PARTIAL)),
    'distance': replace(CodeDistance.of(BOOK)),
    'masked distance': MaskAndReplace(Cosine(), CodeDistance.of(BOOK, Partial(Linear(), 0.2))),
    'no replacement': MaskAndReplace(Geometric(), Uniform(Constant())),
}
KEPT = {'uniform': Cosine(), 'hybrid': PARTIAL, 'distance': Linear(), 'masked distance': Partial(Linear(), 0.2),
        'no replacement': Constant()}
STRIDES = [(1e-3, 0.0), (0.3, 0.0), (0.5, 0.45), (0.9, 0.1), (1.0, 0.7), (1.0, 0.0), (0.6, 0.6)]


def _generator(name):
    """The rates of the kernel, rebuilt from the codebook; float64 [K, K]."""
    if 'distance' not in name:
        return np.full((K, K), 1 / K) - np.eye(K)
    squares = ((BOOK[:, None] - BOOK[None]) ** 2).sum(-1)
    near = np.median([min(row[row > 0]) for row in squares])
    rates = np.exp(-squares / (2 * near))
    rates += 1e-3 * rates.mean()
    np.fill_diagonal(rates, 0)
    rates -= np.diag(rates.sum(1))
    return rates / -np.sort(np.linalg.eigvalsh(rates))[-2]


@functools.cache
def _chances(name, t):
    masking = PROCESSES[name].masking
    return float(masking.alpha(jnp.asarray(t, jnp.float64))), float(KEPT[name].alpha(jnp.asarray(t, jnp.float64)))


@functools.cache
def _transition(name, s, t):
    """Q(t|s) over K codes and the mask by a matrix exponential, float64 [K + 1, K + 1]."""
    (m_s, a_s), (m_t, a_t) = _chances(name, s), _chances(name, t)
    kernel = expm(_generator(name) * (np.log(a_s) - np.log(max(a_t, 1e-300)))) if a_t < a_s else np.eye(K)
    stay = m_t / m_s if m_s > 0 else 0.0
    matrix = np.zeros((K + 1, K + 1))
    matrix[:K, :K], matrix[:K, K], matrix[K, K] = stay * kernel, 1 - stay, 1
    return matrix


def _brute_posterior(name, t, s):
    """q(z_s | z_t, x) by Bayes, float64 [x, z_t, z_s]; where z_t cannot come from x, nan."""
    early, step = _transition(name, 0.0, s)[:K], _transition(name, s, t)
    joint = early[:, None, :] * step.T[None]
    total = joint.sum(-1, keepdims=True)
    return np.where(total > 0, joint / np.where(total > 0, total, 1), np.nan)


def _grid():
    x, z = np.meshgrid(np.arange(K), np.arange(K + 1), indexing='ij')
    return jnp.asarray(x, jnp.int32), jnp.asarray(z, jnp.int32)


def _at(level, x):
    return jnp.full(x.shape, level, jnp.float64)


@pytest.mark.parametrize('name', PROCESSES)
def test_marginal_and_posterior_are_those_of_bayes_at_every_stride(name):
    with jax.enable_x64(True):
        x, z = _grid()
        marginals = jax.jit(lambda t: PROCESSES[name].marginal(x[:, 0], t, K))
        posteriors = jax.jit(lambda t, s: PROCESSES[name].posterior(z, x, t, s, K))
        for t, s in STRIDES:
            np.testing.assert_allclose(marginals(_at(t, x[:, 0])), _transition(name, 0.0, t)[:K], atol=1e-12)
            found = posteriors(_at(t, x), _at(s, x))
            brute = _brute_posterior(name, t, s)
            np.testing.assert_allclose(np.where(np.isnan(brute), np.nan, found), brute, atol=1e-12)
            np.testing.assert_allclose(np.sum(found, -1), 1, atol=1e-12)


@pytest.mark.parametrize('name', PROCESSES)
def test_transitions_compose(name):
    """Chapman-Kolmogorov, forwards and, given x, backwards."""
    with jax.enable_x64(True):
        x, z = _grid()
        r, s, t = (_at(level, x) for level in (0.2, 0.5, 0.8))
        kernel = PROCESSES[name].replacing
        weights = jnp.asarray(np.random.default_rng(0).random((*x.shape, K)))
        np.testing.assert_allclose(kernel.spread(kernel.spread(weights, r, s), s, t), kernel.spread(weights, r, t),
                                   atol=1e-12)
        posterior = jax.jit(lambda a, b: PROCESSES[name].posterior(z, x, a, b, K))
        twice = np.einsum('xts,xsr->xtr', posterior(t, s), posterior(s, r))
        possible = _transition(name, 0.0, 0.8)[:K] > 0
        np.testing.assert_allclose(twice[possible], np.asarray(posterior(t, r))[possible], atol=1e-12)


@pytest.mark.parametrize('name', PROCESSES)
def test_reverse_step_mixes_the_posteriors_of_all_codes(name):
    with jax.enable_x64(True):
        p = np.random.default_rng(1).dirichlet(np.ones(K), size=K + 1)
        z, (t, s) = jnp.arange(K + 1), (0.7, 0.4)
        if name == 'no replacement':
            p[:K] = np.eye(K)  # the plain posterior of a token that is seen is that token
        found = jax.jit(PROCESSES[name].reverse)(jnp.log(jnp.asarray(p)), z, _at(t, z), _at(s, z))
        expected = np.einsum('zx,xzs->zs', p, np.nan_to_num(_brute_posterior(name, t, s)))
        possible = _transition(name, 0.0, t)[:K].sum(0) > 0
        np.testing.assert_allclose(found[possible], expected[possible], atol=1e-12)


def test_limits_of_the_hybrid():
    with jax.enable_x64(True):
        x, z = _grid()
        t, s = _at(0.7, x), _at(0.2, x)
        masked, absorbing = PROCESSES['no replacement'], Absorbing(Geometric())
        logits = jnp.asarray(np.random.default_rng(2).normal(size=(*x.shape, K)))
        everything = lambda process: jax.jit(lambda t, s: (
            process.loss(logits, x, z, t, K)[:, K], process.step_loss(logits, x, z, t, s, K)[:, K],
            process.likelihood(z, t, K), process.weight(t)))(t, s)
        for ours, theirs in zip(everything(masked), everything(absorbing)):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
        posterior = lambda process: jax.jit(lambda t, s: process.posterior(z, x, t, s, K))(t, s)
        np.testing.assert_allclose(posterior(replace(CodeDistance.of(np.eye(K)))), posterior(replace()), atol=1e-12)


@pytest.mark.parametrize('name', PROCESSES)
def test_bound_in_continuous_time_is_the_limit_of_its_steps(name):
    with jax.enable_x64(True):
        x, z = _grid()
        p = np.random.default_rng(3).dirichlet(np.ones(K), size=(K, K + 1))
        if name == 'no replacement':
            p[:, :K] = np.maximum(np.eye(K), 1e-300)[None]
        logits, t, width = jnp.log(jnp.asarray(p)), _at(0.6, x), 1e-7

        @jax.jit
        def both(logits, t):
            process = PROCESSES[name]
            return process.loss(logits, x, z, t, K), process.step_loss(logits, x, z, t, t - width, K) / width

        rate, steps = map(np.asarray, both(logits, t))
        possible = _transition(name, 0.0, 0.6)[:K] > 0
        np.testing.assert_allclose(rate[possible], steps[possible], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('name', ['uniform', 'hybrid', 'masked distance', 'absorbing'])
def test_rates_are_the_limit_of_the_reverse_step(name):
    with jax.enable_x64(True):
        kernel = 'no replacement' if name == 'absorbing' else name
        process, z = PROCESSES[kernel], jnp.arange(K + 1)
        p = np.random.default_rng(6).dirichlet(np.ones(K), size=K + 1)
        logits, t, width = jnp.log(jnp.asarray(p)), _at(0.6, z), 1e-7
        limit = np.array(jax.jit(lambda t: process.reverse(logits, z, t, t - width) / width)(t))[:, :K]
        limit[np.arange(K), np.arange(K)] = 0.0
        process = Absorbing(Geometric()) if name == 'absorbing' else process
        np.testing.assert_allclose(jax.jit(lambda t: process.rates(logits, z, t, K))(t), limit, rtol=1e-4, atol=1e-6)


def test_plain_and_leave_one_out():
    """The conversion, the plug-in posterior of UDLM, and what the latter does with the wrong denoiser."""
    with jax.enable_x64(True):
        process, (t, s) = PROCESSES['uniform'], (0.6, 0.3)
        z = jnp.arange(K)
        p = np.random.default_rng(4).dirichlet(np.ones(K), size=K)
        out = np.exp(leave_one_out(process, jnp.log(jnp.asarray(p)), z, _at(t, z)))
        a_t, a_s = (float(Cosine().alpha(jnp.asarray(level, jnp.float64))) for level in (t, s))
        subtracted = np.log(p) - np.eye(K) * np.log(1 + K * a_t / (1 - a_t))
        np.testing.assert_allclose(out, np.exp(subtracted) / np.exp(subtracted).sum(-1, keepdims=True), atol=1e-12)
        np.testing.assert_allclose(plain(process, jnp.log(out), z, _at(t, z)), np.log(p), atol=1e-12)

        def plug_in(x):
            late = a_t / a_s
            product = (late * np.eye(K) + (1 - late) / K) * (a_s * x + (1 - a_s) / K)
            return product / product.sum(-1, keepdims=True)

        exact = np.asarray(process.reverse(jnp.log(jnp.asarray(p)), z, _at(t, z), _at(s, z)))[:, :K]
        np.testing.assert_allclose(plug_in(out), exact, atol=1e-12)
        assert np.abs(plug_in(p) - exact).sum(-1).max() / 2 > 0.05


def test_uniform_bound_is_that_of_udlm():
    """arXiv:2412.10193, equation (19) in rates and ratios, with the leave-one-out denoiser plugged in."""
    with jax.enable_x64(True):
        process, t = replace(Uniform(Linear())), 0.35
        x, z = (grid[:, :K] for grid in _grid())
        out = np.random.default_rng(5).dirichlet(np.ones(K), size=(K, K))
        found = jax.jit(lambda out, t: process.loss(plain(process, jnp.log(out), z, t), x, z, t, K))(out, _at(t, x))
        alpha = 1 - t
        truth, guess = (K * alpha * p + 1 - alpha for p in (np.eye(K)[x], out))
        here = np.eye(K)[z].astype(bool)
        ratio, ratio_guess = (q / q[here].reshape(K, K, 1) for q in (truth, guess))
        terms = np.where(here, 0, ratio_guess - ratio + ratio * np.log(ratio / ratio_guess))
        expected = (1 / alpha) / K * terms.sum(-1)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def _exact_logits(name, t, z):
    """log p(x_i | z) of the toy's joint by enumeration, float64 [Z, L, K], for noisy states z [Z, L]."""
    rows = np.log(np.maximum(_transition(name, 0.0, t)[:K], 1e-300))
    chances = np.exp(sum(rows[toy.STATES[None, :, i], z[:, None, i]] for i in range(toy.LENGTH))) * toy.joint()[None]
    tables = np.stack([np.stack([chances[:, toy.STATES[:, i] == k].sum(1) for k in range(K)], -1)
                       for i in range(toy.LENGTH)], 1)
    return np.log(np.maximum(tables / np.maximum(chances.sum(1), 1e-300)[:, None, None], 1e-300))


def _weights(name, x, t, z):
    """q(z | x) of the noisy states, float64 [Z]."""
    rows = _transition(name, 0.0, t)
    return np.prod([rows[x[i], z[:, i]] for i in range(toy.LENGTH)], axis=0)


NOISY = np.array(list(np.ndindex(*(K + 1,) * toy.LENGTH)))


def _bound(name, process, x, nodes=24):
    """The integral over t by Gauss-Legendre in t = u^3 (4 - 3 u), which is gentle to both ends, and the sum over z."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    u = 0.5 * (points + 1)
    times = u**3 * (4 - 3 * u)
    logits = jnp.asarray(np.stack([_exact_logits(name, t, NOISY) for t in times]))
    shape = logits.shape[:3]
    noisy = jnp.broadcast_to(jnp.asarray(NOISY, jnp.int32)[None], shape)
    codes = jnp.broadcast_to(jnp.asarray(x, jnp.int32)[None, None], shape)
    clock = jnp.broadcast_to(jnp.asarray(times)[:, None, None], shape)
    losses = np.asarray(jax.jit(process.loss, static_argnums=4)(logits, codes, noisy, clock, K)).sum(-1)
    chances = np.stack([_weights(name, x, t, NOISY) for t in times])
    return float((0.5 * weights * 12 * u**2 * (1 - u) * (np.where(chances > 0, losses, 0) * chances).sum(-1)).sum())


@pytest.mark.parametrize(('name', 'tolerance'), [('no replacement', 1e-10), ('uniform', 1e-4), ('hybrid', 1e-4),
                                                 ('masked distance', 1e-4)])
def test_the_bound_is_tight_for_the_exact_posterior(name, tolerance):
    with jax.enable_x64(True):
        process = PROCESSES[name]
        process = Absorbing(Geometric(), 0.0) if name == 'no replacement' else \
            MaskAndReplace(process.masking, process.replacing, (1e-9, 1 - 1e-9))
        for state in (7, 13):
            found = _bound(name, process, toy.STATES[state], 60 if name == 'no replacement' else 32)
            assert abs(found + np.log(toy.joint()[state])) < tolerance


@pytest.mark.parametrize('name', ['no replacement', 'uniform', 'hybrid'])
def test_the_gap_of_the_bound_in_steps_halves_when_they_double(name):
    with jax.enable_x64(True):
        p, gaps = toy.joint(), []
        shape = (len(toy.STATES), len(NOISY), toy.LENGTH)
        codes = jnp.broadcast_to(jnp.asarray(toy.STATES)[:, None], shape)
        noisy = jnp.broadcast_to(jnp.asarray(NOISY)[None], shape)

        @jax.jit
        def step_loss(logits, t, s):
            logits, t, s = jnp.broadcast_to(logits[None], (*shape, K)), jnp.full(shape, t), jnp.full(shape, s)
            return PROCESSES[name].step_loss(logits, codes, noisy, t, s, K).sum(-1)

        for steps in (32, 64):
            total = 0.0
            for i in range(steps):
                t = (i + 1) / steps
                losses = step_loss(jnp.asarray(_exact_logits(name, t, NOISY)), t, i / steps)
                rows = _transition(name, 0.0, t)
                chances = np.prod([rows[toy.STATES[:, None, i], NOISY[None, :, i]] for i in range(toy.LENGTH)], axis=0)
                total += float((np.where(chances > 0, losses, 0) * chances).sum(-1) @ p)
            gaps.append(total + p @ np.log(p))
        assert 0.9 < np.log2(gaps[0] / gaps[1]) < 1.1


@pytest.mark.parametrize('name', ['uniform', 'hybrid', 'masked distance'])
def test_draws_follow_the_marginal_and_the_posterior(name):
    """Chi-square of 1e5 draws of corrupt, of step from every (x, z_t), and of forward from every z_s."""
    process, draws, (t, s) = PROCESSES[name], 100_000 // (K * (K + 1)), (0.6, 0.35)
    x, z = (np.broadcast_to(grid[..., None], (K, K + 1, draws)).reshape(1, -1) for grid in _grid())
    mask_ids = jnp.full(x.shape[1], K)

    @jax.jit
    def moves(one, two, three, x, z):
        return (process.corrupt(one, x, jnp.full(x.shape, t), mask_ids),
                process.step(two, z, x, jnp.float32(t), jnp.float32(s), mask_ids),
                process.forward(three, z, jnp.float32(s), jnp.float32(t), mask_ids))

    noisy, earlier, later = map(np.asarray, moves(*map(jax.random.key, range(3)), x, z))
    with jax.enable_x64(True):
        marginal, posterior = _transition(name, 0.0, t)[:K], _brute_posterior(name, t, s)
        onwards = _transition(name, s, t)
    for code in range(K + 1):
        _fits(later[z == code], onwards[code])
    for code in range(K):
        _fits(noisy[x == code], marginal[code])
        for seen in np.flatnonzero(marginal[code]):
            _fits(earlier[(x == code) & (z == seen)], posterior[code, seen])


def _fits(drawn, probabilities):
    counts = np.bincount(drawn, minlength=K + 1)
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    if possible.sum() > 1:
        expected = probabilities[possible] / probabilities[possible].sum() * counts.sum()
        assert stats.chisquare(counts[possible], expected).pvalue > 1e-3


def test_a_denoiser_that_leaves_out_is_made_plain_for_every_modality():
    process = replace()
    denoiser = lambda codes, clock: {'toy': jnp.zeros((*codes.shape, K))}
    codes, clock = jnp.array([[0, 1, 2]]), jnp.full((1, 3), 0.5)
    found = np.exp(as_plain(process, denoiser, toy.LAYOUT)(codes, clock)['toy'][0])
    np.testing.assert_allclose(found, 0.5 * np.eye(3) + 0.5 / 3, atol=1e-6)


def test_a_process_that_keeps_something_is_refused():
    with pytest.raises(UserError, match='of every token is left'):
        replace(Uniform(PARTIAL))
    with pytest.raises(UserError, match='2 codes'):
        CodeDistance.of(np.zeros((1, 4)))


def test_codes_move_to_near_codes_first():
    row = np.asarray(PROCESSES['distance'].marginal(jnp.array([0]), jnp.array([0.2]), K))[0]
    assert row[1] > 2 * row[2]
