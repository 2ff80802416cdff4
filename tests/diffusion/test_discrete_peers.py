"""Our steps over codes beside those of diffusers, through golden/discrete.json."""

import json

import discrete_golden as peer
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.diffusion.categorical import Absorbing, leave_one_out, replace
from vqdit.diffusion.clock import GENERATED
from vqdit.diffusion.samplers import Ordered, sample_keys
from vqdit.diffusion.schedules import Cosine
from vqdit.tokenizers.spec import TokenLayout, TokenSpec

K = peer.CODES


@pytest.fixture(scope='module')
def golden():
    return json.loads(peer.PATH.read_text())


def test_discrete_ddim_is_the_posterior_of_the_uniform_kernel(golden):
    """Their step n of T goes from our noise level 1 - n / T to 1 - (n + 1) / T, in three routes."""
    with jax.enable_x64(True):
        x, z = (jnp.asarray(grid) for grid in np.meshgrid(*[np.arange(K)] * 2, indexing='ij'))
        t, s = (jnp.full(x.shape, 1 - (peer.INDEX + later) / peer.STEPS) for later in (0, 1))
        found = replace().posterior(z, x, t, s, K)
        np.testing.assert_allclose(found[..., :K], golden['replacing']['posterior'], atol=1e-6)


def test_their_gibbs_corrector_draws_from_our_conditional(golden):
    """alpha p(x | the other tokens) + (1 - alpha) / K, sorted by token: theirs come in a random order."""
    with jax.enable_x64(True):
        alpha, z = (peer.INDEX + 1) / peer.STEPS, jnp.arange(K)
        out = leave_one_out(replace(), jnp.log(jnp.asarray(peer.table())), z, jnp.full(K, 1 - alpha))
        ours = np.sort(alpha * np.exp(out) + (1 - alpha) / K, axis=0)
        np.testing.assert_allclose(ours, golden['replacing']['conditional'], atol=1e-12)


def test_amused_is_the_confidence_order_on_the_cosine_schedule(golden):
    """Without noise, for a length at which rounding their counts down is rounding them as ours."""
    layout = TokenLayout({'x': TokenSpec((peer.TOKENS,), peer.CHOICES)})
    sampler = Ordered(4, temperature=0.0, order='confidence', process=Absorbing(Cosine()))
    roles = jnp.full((1, peer.TOKENS), GENERATED)
    way = sampler.trajectory(sample_keys(jax.random.key(0), jnp.arange(1)), lambda *_: {'x': peer.logits()[None]},
                             roles, roles, layout)
    np.testing.assert_array_equal(way[1:, 0], golden['masking'])


@pytest.mark.peers
def test_the_golden_file_is_what_diffusers_does(golden):
    made = peer.make()
    np.testing.assert_allclose(made['replacing']['posterior'], golden['replacing']['posterior'], atol=1e-7)
    np.testing.assert_allclose(made['replacing']['conditional'], golden['replacing']['conditional'], atol=1e-12)
    assert made['masking'] == golden['masking']
