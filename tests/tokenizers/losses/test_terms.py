import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import DataError, UserError
from vqdit.tokenizers.losses.reconstruction import charbonnier_loss, gradient_loss
from vqdit.tokenizers.losses.spectral import mel_loss
from vqdit.tokenizers.losses.terms import LOSSES, build_terms

RNG = np.random.default_rng(0)
A, B = (jnp.asarray(RNG.uniform(-1, 1, (2, 12, 12, 1)), jnp.float32) for _ in range(2))


def test_terms_are_the_losses_of_their_names():
    terms = build_terms({'absolute': 0.5, 'squared': 2.0, 'gradient': 0.1, 'dissimilarity': 0.0,
                         'charbonnier': {'weight': 3.0, 'epsilon': 0.1}}, 'losses', rate=8000)
    assert [(term.name, term.weight) for term in terms] == [
        ('absolute', 0.5), ('squared', 2.0), ('gradient', 0.1), ('charbonnier', 3.0)]
    expected = [np.mean(np.abs(A - B)), np.mean((A - B) ** 2), gradient_loss(A, B), charbonnier_loss(A, B, 0.1)]
    np.testing.assert_allclose([term.loss(A, B) for term in terms], expected, rtol=1e-6)


def test_losses_of_sound_know_the_rate_of_the_data():
    sound, other = (jnp.asarray(RNG.normal(size=(2, 400, 1)), jnp.float32) for _ in range(2))
    term, = build_terms({'mel': {'weight': 15.0, 'windows': (64, 32), 'bands': (8, 4)}}, 'losses', rate=8000)
    assert float(term.loss(sound, other)) == pytest.approx(
        float(mel_loss(sound[..., 0], other[..., 0], 8000, (64, 32), (8, 4))), rel=1e-6)


@pytest.mark.parametrize('name', ['mel', 'spectral'])
@pytest.mark.parametrize('shape', [(2, 32, 32, 1), (2, 400, 40), (2, 400, 2)])
def test_losses_of_sound_refuse_everything_else(name, shape):
    term, = build_terms({name: 1.0}, 'losses', rate=8000)
    with pytest.raises(UserError, match=r'sound \[B, samples, 1\].*remove them'):
        term.loss(jnp.zeros(shape), jnp.zeros(shape))


def test_cross_entropy_is_of_data_as_probabilities():
    output, target = jnp.asarray([[[-1.0], [-0.2], [0.5], [1.0]]]), jnp.asarray([[[-1.0], [0.6], [0.5], [1.0]]])
    term, = build_terms({'binary_cross_entropy': 1.0}, 'losses')
    certain, share, truth = 1 - 5e-7, np.array([0.4, 0.75]), np.array([0.8, 0.75])
    expected = -2 * np.log(certain) - np.sum(truth * np.log(share) + (1 - truth) * np.log(1 - share))
    assert float(term.loss(output, target)) == pytest.approx(expected / 4, rel=1e-5)
    wrong = jax.grad(lambda x: term.loss(jnp.tanh(x), jnp.ones(1)))(jnp.asarray([-6.0]))
    np.testing.assert_allclose(wrong, -2.0, rtol=1e-3, err_msg='a certain mistake still has its whole slope')


@pytest.mark.parametrize('weights, message', [
    ({'squred': 1.0}, 'losses name "squred" is unknown.*Did you mean "squared"'),
    ({'charbonnier': {'epsilom': 1}}, 'losses.charbonnier.epsilom is no option.*Did you mean "epsilon"'),
    ({'mel': 1.0}, 'losses.mel.rate is missing')])
def test_misspelt_terms_are_refused(weights, message):
    with pytest.raises(UserError, match=message):
        build_terms(weights, 'losses')


def test_the_perceptual_loss_asks_for_its_weights():
    with pytest.raises(UserError, match=r'perceptual\.weights is missing'):
        build_terms({'perceptual': 1.0}, 'losses')
    with pytest.raises(DataError, match='nowhere'):
        build_terms({'perceptual': {'weights': 'nowhere.npz'}}, 'losses')
    assert 'perceptual' in LOSSES
