"""The output law of every sampler of codes: enumerated, compared with the truth, and with what the code draws."""

import functools

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
import toy
from scipy import stats

from vqdit.diffusion.categorical import Absorbing, MaskAndReplace, Uniform, replace
from vqdit.diffusion.clock import ABSENT, GENERATED, GIVEN
from vqdit.diffusion.samplers import (
    Ancestral,
    EntropyBounded,
    FirstHitting,
    ForwardBackward,
    LeaveOneOutGibbs,
    Ordered,
    Remasking,
    TauLeaping,
    blocks,
    capped,
    during,
    levels,
    looped,
    on_the_unsure,
    rescaled,
    sample_keys,
    top_k,
    top_p,
)
from vqdit.diffusion.schedules import Cosine, Linear, Partial
from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout, TokenSpec

K, L, DRAWS = toy.CODES, toy.LENGTH, 10_000
LOOP = looped(0.4, 0.5)
REMASK = lambda t, s: min(0.3, s / max(1 - t, 1e-12), 1.0) if t < 1 else 0.0



def _two_blocks(z, step):
    """First a token of the first two, then the two that are left."""
    if step:
        return laws.revealed(z, laws.masked(z))
    return {later: p / 2 for place in (0, 1) for later, p in laws.revealed(z, [place]).items()}


LAWS = {
    'ancestral': (Ancestral(4), lambda: laws.ancestral(4)),
    'tau leaping': (TauLeaping(4), lambda: laws.tau_leaping(4)),
    'corrected': (Ancestral(2, corrector=ForwardBackward(Absorbing(), 0.4)), lambda: laws.corrected(2, 0.4)),
    'remasking': (Remasking(4, capped(0.3)), lambda: laws.remasking(laws.straight(4), REMASK)),
    'no remasking': (Remasking(4, rescaled(0.0)), lambda: laws.ancestral(4)),
    'remasking loop': (Remasking(6, during(capped(0.5), 0.4, 0.4), times=LOOP), lambda: laws.remasking(
        LOOP(6).astype(float), lambda t, s: min(0.5, s / (1 - t)) if abs(t - 0.4) < 1e-6 else 0.0)),
    'remasking the unsure': (Remasking(3, capped(0.4), focus=on_the_unsure), lambda: laws.unsure(
        3, lambda t, s: min(0.4, s / (1 - t)) if t < 1 else 0.0)),
    'random': (Ordered(L), lambda: toy.joint()),
    'first hitting': (FirstHitting(), lambda: toy.joint()),
    'entropy': (Ordered(L, order='entropy'), lambda: toy.joint()),
    'margin': (Ordered(L, order='margin'), lambda: toy.joint()),
    'purity': (Ordered(L, order='purity'), lambda: toy.joint()),
    'blocks': (Ordered(L, stages=blocks(1)), lambda: toy.joint()),
    'blocks of 2 in 2 steps': (Ordered(2, stages=blocks(2)), lambda: laws.run(_two_blocks, 2)),
    'entropy bound 0': (EntropyBounded(0.0), lambda: toy.joint()),
    'entropy bound 0.9': (EntropyBounded(0.9), lambda: laws.entropy_bounded(0.9)),
    'confidence': (Ordered(L, order='confidence'), laws.confidence),
}


def _draw(sampler, roles=None, codes=None, draws=DRAWS, denoiser=None):
    roles = jnp.full((draws, L), GENERATED) if roles is None else roles
    codes = jnp.full((draws, L), K, jnp.int32) if codes is None else codes
    keys = sample_keys(jax.random.key(0), jnp.arange(draws))
    return np.asarray((_compiled(sampler) if denoiser is None else _program(sampler, denoiser))(keys, codes, roles))


def _program(sampler, denoiser):
    return jax.jit(lambda keys, codes, roles: sampler(keys, denoiser, codes, roles, toy.LAYOUT))


@functools.cache
def _compiled(sampler):
    """With the perfect denoiser, once for the tests of its law and of what it is given."""
    return _program(sampler, toy.denoiser(toy.joint()))


def _fit(samples, law):
    """The p-value of the chi-square of samples, rare states pooled."""
    counts, expected = toy.frequencies(samples) * DRAWS, law * DRAWS
    rare = expected < 5
    if rare.any():
        counts, expected = (np.append(x[~rare], x[rare].sum()) for x in (counts, expected))
    return stats.chisquare(counts, expected).pvalue


@pytest.mark.parametrize('name', LAWS)
def test_what_is_drawn_follows_the_enumerated_law(name):
    sampler, law = LAWS[name]
    assert _fit(_draw(sampler), law()) > 1e-3


def test_orders_that_do_not_look_at_the_draw_are_exact():
    for choose in (lambda z, rows: min(laws.masked(z), key=lambda i: laws.entropies(z)[i]),
                   lambda z, rows: max(laws.masked(z), key=lambda i: rows[i].max()), lambda z, rows: laws.masked(z)[0]):
        assert toy.total_variation(laws.one_at_a_time(choose), toy.joint()) < 1e-12
    assert toy.total_variation(laws.entropy_bounded(0.0), toy.joint()) < 1e-12


@pytest.mark.parametrize('law', [laws.ancestral, laws.tau_leaping])
def test_steps_are_of_first_order(law):
    errors = [toy.total_variation(law(steps), toy.joint()) for steps in (8, 16, 32, 64)]
    slopes = -np.diff(np.log2(errors))
    assert 0.9 < slopes[-1] < 1.1 and (slopes > 0.8).all()


def test_the_forward_backward_corrector_keeps_the_law_up_to_the_square_of_its_share():
    law, moved = laws.noised(0.5), []
    for share in (0.1, 0.05, 0.025):
        after = laws.forward_backward(law, 0.5, share)
        moved.append(0.5 * sum(abs(after.get(z, 0.0) - mass) for z, mass in law.items()))
    np.testing.assert_allclose(-np.diff(np.log2(moved)), 2.0, atol=0.15)


def test_a_loop_holds_its_level_and_needs_steps_to_come_and_go():
    np.testing.assert_allclose(looped(0.2, 0.5)(8), [1, 11 / 15, 7 / 15, 0.2, 0.2, 0.2, 0.2, 0.2, 0], atol=1e-6)
    with pytest.raises(UserError, match='more steps'):
        Remasking(3, times=looped(0.1, 0.9))


def test_the_bias_of_the_confidence_order_as_a_number(capsys):
    law = laws.confidence()
    bias = toy.total_variation(law, toy.joint())
    with capsys.disabled():
        print(f' [confidence order: TV {bias:.3f}, entropy {laws.entropy_of(law):.3f} for '
              f'{laws.entropy_of(toy.joint()):.3f} nats] ', end='')
    assert bias > 0.05 and laws.entropy_of(law) < laws.entropy_of(toy.joint())


@pytest.mark.parametrize('amount', [capped(0.4), rescaled(0.7), during(capped(1.0), 0.7, 0.3)])
def test_remasking_keeps_the_share_of_revealed_tokens(amount):
    sampler, share = Remasking(8, amount), 0.0
    for step in range(8):
        t, s = jnp.float32(1 - step / 8), jnp.float32(1 - (step + 1) / 8)
        remask, reveal = map(float, sampler.probabilities(t, s))
        share = share * (1 - remask) + (1 - share) * reveal
        assert share == pytest.approx(1 - float(s), abs=1e-5)


def _noisy_table(process, t):
    """The law of the noisy codes q(z) and the exact plain posteriors of `process` at t, over all z; float64."""
    rows = np.asarray(process.marginal(jnp.arange(K), jnp.full(K, t), K), np.float64)
    chances = np.ones((len(laws.NOISY), len(toy.STATES)))
    for i in range(L):
        chances *= rows[toy.STATES[:, i]][:, np.array(laws.NOISY)[:, i]].T
    joint = chances * toy.joint()[None]
    posterior = np.stack([np.stack([joint[:, toy.STATES[:, i] == k].sum(1) for k in range(K)], -1)
                          for i in range(L)], 1)
    return joint.sum(1), posterior / np.maximum(joint.sum(1), 1e-30)[:, None, None]


def _exact_denoiser(process, steps):
    """The perfect denoiser of `process` at the noise levels of `steps` equal steps: a table over times and states."""
    tables = np.stack([_noisy_table(process, max(i, 1e-3) / steps)[1] for i in range(steps + 1)])
    logits, powers = jnp.log(jnp.asarray(np.maximum(tables, 1e-30), jnp.float32)), (K + 1) ** np.arange(L - 1, -1, -1)

    def apply(codes, clock):
        level = jnp.round(jnp.max(clock, axis=1) * steps).astype(jnp.int32)
        return {'toy': logits[level, jnp.sum(codes * jnp.asarray(powers)[None], axis=1)]}
    return apply


HYBRID = MaskAndReplace(Linear(), Uniform(Partial(Linear(), 0.3)))


@pytest.mark.parametrize(('sampler', 'process'), [(Ancestral, replace()), (Ancestral, HYBRID), (TauLeaping, HYBRID)])
def test_other_processes_are_reversed_too(sampler, process):
    """The error falls as the steps grow; 32 are within 4 % of the truth."""
    errors = [toy.total_variation(toy.frequencies(_draw(sampler(n, process=process),
                                                        denoiser=_exact_denoiser(process, n))), toy.joint())
              for n in (2, 32)]
    assert errors[1] < 0.04 and errors[1] < 0.5 * errors[0]


def test_gibbs_leaves_the_law_of_noisy_codes_alone():
    process, t = replace(), 0.5
    law, _ = _noisy_table(process, t)
    rng = np.random.default_rng(0)
    start = np.array(laws.NOISY)[rng.choice(len(law), DRAWS, p=law / law.sum())]
    corrector, denoiser = LeaveOneOutGibbs(process), _exact_denoiser(process, 2)
    keys = sample_keys(jax.random.key(3), jnp.arange(DRAWS))
    after = np.asarray(jax.jit(lambda k, z: corrector(k, denoiser, z, jnp.full((DRAWS, L), GENERATED), jnp.float32(t),
                                                      toy.LAYOUT))(keys, jnp.asarray(start)))
    assert ((after != start).sum(1) <= 1).all() and (after != start).any(0).all()
    counts = toy.frequencies(after) * DRAWS
    expected = law[(np.array(laws.NOISY) < K).all(1)]
    assert stats.chisquare(counts, expected / expected.sum() * DRAWS).pvalue > 1e-3


def test_truncation_keeps_the_likeliest():
    logits = jnp.log(jnp.array([[[0.5, 0.3, 0.15, 0.05]]]))
    denoiser = lambda codes, clock: {'x': logits}
    kept = lambda wrapped: np.isfinite(wrapped(None, None)['x'][0, 0]).tolist()
    assert kept(top_k(denoiser, 2)) == [True, True, False, False]
    assert kept(top_k(denoiser, 9)) == [True] * 4
    assert kept(top_p(denoiser, 0.79)) == [True, True, False, False]
    assert kept(top_p(denoiser, 0.81)) == [True, True, True, False]
    assert kept(top_p(denoiser, 1.0)) == [True] * 4


def test_stages():
    layout = TokenLayout({'a': TokenSpec((4,), 3), 'b': TokenSpec((2, 2), 3, levels=2)})
    np.testing.assert_array_equal(blocks(2)(layout), [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(levels(layout), [0, 0, 0, 0] + [0, 1] * 4)


EVERY = ('ancestral', 'tau leaping', 'random', 'confidence', 'first hitting', 'entropy bound 0.9',
         'remasking the unsure', 'corrected')


@pytest.mark.parametrize('sampler', [
    *(LAWS[name][0] for name in EVERY), Ancestral(2, process=replace(), corrector=LeaveOneOutGibbs(replace()))])
def test_given_tokens_stay_and_garbage_elsewhere_is_not_seen(sampler):
    """Inpainting: bit for bit, whatever stands where nothing is given, and no mask is left where it is generated."""
    roles = jnp.broadcast_to(jnp.array([GIVEN, GENERATED, ABSENT])[None], (DRAWS, L))
    clean, garbage = (jnp.broadcast_to(jnp.array(row)[None], (DRAWS, L)) for row in ([2, K, K], [2, 0, 1]))
    samples = _draw(sampler, roles, clean)
    assert (samples[:, 0] == 2).all() and (samples[:, 1] < K).all() and (samples[:, 2] == K).all()
    np.testing.assert_array_equal(_draw(sampler, roles, garbage), samples)


def test_a_hundred_tasks_run_the_same_program():
    draws, sampler, denoiser = 2, Ordered(3), toy.denoiser(toy.joint())
    run = jax.jit(lambda keys, codes, roles: sampler(keys, denoiser, codes, roles, toy.LAYOUT))
    for number in range(100):
        roles = jnp.asarray(np.random.default_rng(number).integers(0, 3, (draws, L)), jnp.int32)
        run(sample_keys(jax.random.key(number), jnp.arange(draws)), jnp.zeros((draws, L), jnp.int32), roles)
    assert run._cache_size() == 1


@pytest.mark.parametrize('make', [
    lambda: Remasking(0), lambda: TauLeaping(0), lambda: capped(1.5), lambda: looped(1.0, 0.5),
    lambda: ForwardBackward(Absorbing(), 1.0), lambda: LeaveOneOutGibbs(Absorbing()),
    lambda: EntropyBounded(-1.0), lambda: blocks(0),
    lambda: top_k(lambda *_: {}, 0), lambda: top_p(lambda *_: {}, 0.0), lambda: Ordered(3, order='best')])
def test_bad_settings_are_refused(make):
    with pytest.raises(UserError):
        make()


def test_levels_from_coarse_to_fine_are_exact_at_a_token_a_step():
    """Three levels of one position: the chain rule in the order of the levels."""
    layout = TokenLayout({'toy': TokenSpec((1,), K, levels=L)})
    roles = jnp.full((DRAWS, L), GENERATED)
    sampler, denoiser = Ordered(L, stages=levels), toy.denoiser(toy.joint())
    keys = sample_keys(jax.random.key(0), jnp.arange(DRAWS))
    seen = np.asarray(jax.jit(lambda keys: sampler.trajectory(keys, denoiser, roles, roles, layout))(keys))
    for step, codes in enumerate(seen):
        assert (codes[:, :step] < K).all() and (codes[:, step:] == K).all()
    assert _fit(seen[-1], toy.joint()) > 1e-3


@pytest.mark.parametrize('sampler', [Ancestral(4), Ordered(3, order='confidence')])
def test_the_trajectory_ends_in_the_samples_and_every_step_is_told(sampler):
    told, roles = [], jnp.broadcast_to(jnp.array([GIVEN, GENERATED, GENERATED])[None], (8, L))
    codes, keys = jnp.full((8, L), 1), sample_keys(jax.random.key(0), jnp.arange(8))
    arguments = keys, toy.denoiser(toy.joint()), codes, roles, toy.LAYOUT
    whole = np.asarray(sampler.trajectory(*arguments))
    np.testing.assert_array_equal(whole[-1], sampler(*arguments, on_step=told.append))
    jax.effects_barrier()
    assert sorted(told) == list(range(sampler.length(toy.LAYOUT))) and len(whole) == len(told) + 1
    np.testing.assert_array_equal(whole[0], np.tile([1, K, K], (8, 1)))


def test_the_noise_level_that_a_sampler_tells_is_the_one_of_the_masked_share():
    """On any schedule: a third of the tokens is masked at the t of alpha(t) = 2/3, which the model was trained at."""
    seen = []

    def denoiser(codes, clock):
        jax.debug.callback(lambda codes, clock: seen.append(((codes == K).mean(), clock.max())), codes, clock)
        return {'toy': jnp.zeros((*codes.shape, K))}

    for sampler in (Ordered(L, process=Absorbing(Cosine())), EntropyBounded(0.0, process=Absorbing(Cosine()))):
        _draw(sampler, draws=1, denoiser=denoiser, roles=jnp.full((1, L), GENERATED), codes=jnp.full((1, L), K))
    jax.effects_barrier()
    assert {round(float(share), 3) for share, _ in seen} >= {0.333, 1.0}
    for share, level in seen:
        assert float(Cosine().alpha(level)) == pytest.approx(1 - float(share), abs=1e-5)
