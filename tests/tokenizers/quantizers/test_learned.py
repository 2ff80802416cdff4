"""The quantizers whose codebooks learn by gradient, and those that do not learn or quantize at all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from driver import init, lookup, normal, quantize, train

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers import (
    GaussianBottleneck,
    GumbelQuantizer,
    Identity,
    IndexBackpropQuantizer,
    RandomProjectionQuantizer,
    SimVectorQuantizer,
)

Z, KEY = normal(40, 4), jax.random.key(0)


def _slopes(quantizer, variables, of):
    """Gradients of `of(out)` with respect to latents and parameters in a training step."""
    def value(z, params):
        return of(quantizer.apply(variables | {'params': params}, z, train=True, key=KEY, mutable=['codebook'])[0])
    return jax.jit(jax.grad(value, argnums=(0, 1)))(Z, variables['params'])


def test_one_linear_map_moves_all_codes_of_simvq():
    """arXiv:2411.02038: codes are frozen rows times the map; the loss is that of VQ with 1 and 0.25."""
    quantizer = SimVectorQuantizer(num_codes=16, dimension=4)
    variables = init(quantizer, KEY, (40, 4))
    frozen, table = variables['codebook']['frozen'], variables['params']['map']
    codes = np.asarray(frozen, np.float64) @ np.asarray(table, np.float64)
    out = quantize(quantizer, variables, Z)
    expected = ((Z[:, None] - codes[None]) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(out.codes[:, 0], expected)
    assert float(out.loss) == pytest.approx(1.25 * np.mean((Z - codes[expected]) ** 2), rel=1e-5)
    _, by_map = _slopes(quantizer, variables, lambda out: out.loss)
    error = codes[expected] - Z
    np.testing.assert_allclose(by_map['map'], np.asarray(frozen)[expected].T @ (2 * error / error.size), atol=1e-6)


def test_index_backprop_gives_every_code_a_gradient():
    """arXiv:2412.02692: code and gradient by softmax(z . e), the losses with 1, 1 and 0.25."""
    quantizer = IndexBackpropQuantizer(num_codes=16, dimension=4, entropy=0.0)
    variables = init(quantizer, KEY, (40, 4))
    codes = np.asarray(variables['params']['codes'], np.float64)
    logits = Z @ codes.T
    out = quantize(quantizer, variables, Z)
    np.testing.assert_array_equal(out.codes[:, 0], logits.argmax(1))
    np.testing.assert_allclose(out.vectors, codes[logits.argmax(1)], atol=1e-6)
    assert float(out.loss) == pytest.approx(2.25 * np.mean((Z - codes[logits.argmax(1)]) ** 2), rel=1e-5)
    pull = normal(40, 4, seed=2)
    by_latent, by_code = _slopes(quantizer, variables, lambda out: jnp.sum(out.vectors * pull))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    by_logit = p * (pull @ codes.T - np.sum(p * (pull @ codes.T), axis=1, keepdims=True))
    np.testing.assert_allclose(by_latent, by_logit @ codes, atol=1e-5)
    np.testing.assert_allclose(by_code['codes'], by_logit.T @ Z + np.eye(16)[logits.argmax(1)].T @ pull, atol=1e-4)
    assert (np.abs(np.asarray(by_code['codes'])).max(axis=1) > 0).all()


def test_gumbel_draws_in_training_and_takes_the_most_likely_otherwise():
    """arXiv:1611.01144; the divergence to the uniform prior is log K less the entropy of the posterior."""
    quantizer = GumbelQuantizer(num_codes=6, dimension=4, divergence=0.5)
    variables = init(quantizer, KEY, (40, 4))
    dense = variables['params']['posterior']
    logits = (Z @ np.asarray(dense['kernel'], np.float64)) + np.asarray(dense['bias'])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    out = quantize(quantizer, variables, Z)
    np.testing.assert_array_equal(out.codes[:, 0], p.argmax(1))
    assert float(out.loss) == pytest.approx(0.5 * np.mean(np.log(6) + np.sum(p * np.log(p), axis=1)), rel=1e-4)
    drawn = [np.asarray(train(quantizer, variables, np.tile(Z[:1], (400, 1)), jax.random.key(i))[0].codes)
             for i in range(2)]
    frequencies = np.bincount(np.concatenate(drawn)[:, 0], minlength=6) / 800
    np.testing.assert_allclose(frequencies, p[0], atol=0.06)


def test_gumbels_temperature_may_follow_the_steps():
    quantizer = GumbelQuantizer(num_codes=6, dimension=4, temperature=optax.exponential_decay(1.0, 1, 0.5))
    variables = init(quantizer, KEY, (40, 4))
    for steps in range(2):
        assert int(variables['codebook']['temperature_now']['steps']) == steps
        _, variables = train(quantizer, variables, Z, KEY)


def test_random_projections_take_the_nearest_direction_and_pass_no_gradient():
    """arXiv:2202.01855: standardised latents, a frozen map, frozen codes, the largest cosine."""
    quantizer = RandomProjectionQuantizer(num_codes=32, dimension=4, code_dimension=3)
    variables = init(quantizer, KEY, (40, 4))
    matrix, codes = (np.asarray(variables['codebook'][name], np.float64) for name in ('map', 'codes'))
    standard = (Z - Z.mean(1, keepdims=True)) / np.sqrt(Z.var(1, keepdims=True) + 1e-5)
    cosines = (standard @ matrix) @ (codes / np.linalg.norm(codes, axis=1, keepdims=True)).T
    out = quantize(quantizer, variables, 5 * Z)
    np.testing.assert_array_equal(quantize(quantizer, variables, Z).codes[:, 0], cosines.argmax(1))
    assert np.mean(np.asarray(out.codes)[:, 0] == cosines.argmax(1)) > 0.95
    assert not np.any(jax.jit(jax.grad(lambda z: quantizer.apply(variables, z).vectors.sum()))(Z))


def test_the_gaussian_bottleneck_has_the_divergence_of_its_closed_form():
    """Reference case 35, arXiv:1312.6114, appendix B: half of sum(mean^2 + var - 1 - log var)."""
    quantizer = GaussianBottleneck(width=2, divergence=0.1)
    out = quantize(quantizer, {}, Z)
    mean, log_variance = Z[:, :2].astype(np.float64), Z[:, 2:]
    expected = np.mean(np.sum(mean**2 + np.exp(log_variance) - 1 - log_variance, axis=1) / 2)
    assert float(out.loss) == pytest.approx(0.1 * expected, rel=1e-5)
    np.testing.assert_array_equal(out.vectors, Z[:, :2])
    assert out.codes.shape == (40, 0)
    drawn, _ = train(quantizer, {}, np.tile(np.float32([[1, 2, 0, -4]]), (4000, 1)), KEY)
    np.testing.assert_allclose(np.std(drawn.vectors, axis=0), [1, np.exp(-2)], rtol=0.05)
    assert np.isfinite(quantize(quantizer, {}, np.full((2, 4), 1e4, np.float32)).loss)


def test_continuous_latents_have_no_codes():
    out = quantize(Identity(4), {}, Z)
    np.testing.assert_array_equal(out.vectors, Z)
    with pytest.raises(UserError, match='Identity has continuous latents'):
        lookup(Identity(4), {}, out.codes)


@pytest.mark.parametrize('quantizer', [SimVectorQuantizer(num_codes=16, dimension=4),
                                       IndexBackpropQuantizer(num_codes=16, dimension=4),
                                       GumbelQuantizer(num_codes=16, dimension=4),
                                       RandomProjectionQuantizer(num_codes=16, dimension=4, code_dimension=3)])
def test_decoding_from_codes_is_decoding_from_vectors_and_hidden_tokens_do_not_count(quantizer):
    """Reference case 25."""
    variables = init(quantizer, KEY, (40, 4))
    out = quantize(quantizer, variables, Z)
    np.testing.assert_array_equal(out.vectors, lookup(quantizer, variables, out.codes))
    mask = np.arange(40) < 25
    hidden, short = quantize(quantizer, variables, Z, mask), quantize(quantizer, variables, Z[:25])
    np.testing.assert_allclose(hidden.loss, short.loss, rtol=1e-5)
    np.testing.assert_allclose(hidden.metrics['perplexity'], short.metrics['perplexity'], rtol=1e-5)


@pytest.mark.parametrize(
    'kind', [SimVectorQuantizer, IndexBackpropQuantizer, GumbelQuantizer, RandomProjectionQuantizer])
def test_one_code_is_no_codebook(kind):
    with pytest.raises(UserError, match='num_codes is 1'):
        kind(num_codes=1)
