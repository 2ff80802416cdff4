"""Truncation as a part of any sampler: its law by enumeration, and what a config says of it."""

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
import toy
from scipy import stats

from vqdit.diffusion.categorical import Absorbing
from vqdit.diffusion.clock import GENERATED
from vqdit.diffusion.registry import build_sampler, build_truncation
from vqdit.diffusion.samplers import FirstHitting, Ordered, Remasking, sample_keys
from vqdit.errors import UserError

DRAWS = 6000


def _samples(sampler, draws=DRAWS):
    roles, codes = jnp.full((draws, toy.LENGTH), GENERATED), jnp.full((draws, toy.LENGTH), toy.CODES, jnp.int32)
    run = jax.jit(lambda keys: sampler(keys, toy.denoiser(toy.joint()), codes, roles, toy.LAYOUT))
    return np.asarray(run(sample_keys(jax.random.key(0), jnp.arange(draws))))


def _kept(row, count=None, mass=1.0):
    """Top-k and top-p of probabilities [K] in float64."""
    order = np.argsort(-row)
    kept = order[:count or len(row)]
    renewed = row[kept] / row[kept].sum()
    kept = kept[np.cumsum(renewed) - renewed < mass]
    return np.where(np.isin(np.arange(len(row)), kept), row, 0.0) / row[kept].sum()


def _law(**truncation):
    """Tokens one at a time in a random order, each from its truncated posterior; float64 [K^L]."""
    def kernel(z, _):
        after, places = {}, laws.masked(z)
        for place in places:
            for code, p in enumerate(_kept(laws.table(z)[place], **truncation)):
                key = laws.replaced(z, [place], [code])
                after[key] = after.get(key, 0.0) + p / len(places)
        return after
    return laws.run(kernel, toy.LENGTH)


@pytest.mark.parametrize(('count', 'mass'), [(None, 0.7), (2, 0.7)])
def test_the_law_is_that_of_truncated_posteriors(count, mass):
    law = _law(count=count, mass=mass or 1.0)
    found = toy.frequencies(_samples(build_truncation(Ordered(toy.LENGTH), 'sampler', count, mass)))
    assert not found[law == 0].any() and (law == 0).any(), 'what is cut off is never drawn'
    often = law * DRAWS >= 5
    found, law = (np.append(x[often], x[(x >= 0) & ~often].sum()) * DRAWS for x in (found, law))
    assert stats.chisquare(found[law > 0], law[law > 0]).pvalue > 1e-3


@pytest.mark.parametrize('make', [
    lambda **t: Ordered(3, **t), lambda **t: FirstHitting(**t), lambda **t: Remasking(4, **t)])
def test_one_code_of_each_is_temperature_zero_for_every_sampler(make):
    """The tokens to reveal are drawn from the same keys: equal bit for bit."""
    found = _samples(build_truncation(make(), 'sampler', 1), 64)
    np.testing.assert_array_equal(found, _samples(make(temperature=0), 64))


def test_no_truncation_is_the_sampler_itself():
    sampler = build_sampler({'name': 'ordered', 'steps': 3}, 'sampler', Absorbing())
    assert build_truncation(sampler, 'sampler') is sampler


@pytest.mark.parametrize(('count', 'mass', 'said'), [
    (0, None, r'diffusion.sampler.top_k is 0; .*1 or more'), (2.5, None, 'number of codes'),
    (None, 0.0, r'diffusion.sampler.top_p is 0.0; .*above 0'), (None, 1.5, 'at most 1')])
def test_unsound_settings_are_refused(count, mass, said):
    with pytest.raises(UserError, match=said):
        build_truncation(Ordered(3), 'diffusion.sampler', count, mass)
