import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from driver import init, lookup, normal, quantize, train

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers import VectorQuantizer
from vqdit.tokenizers.quantizers.codebooks import GradientCodebook, orthogonality
from vqdit.tokenizers.quantizers.estimators import DirectionalNoise
from vqdit.tokenizers.quantizers.metrics import Angular, Cosine, Euclidean, normalise
from vqdit.tokenizers.quantizers.starts import KMeansStart, NormalStart, draw_tokens

KEY = jax.random.key
PLAIN = VectorQuantizer(num_codes=8, dimension=3, decay=0.9, metric=Euclidean())
SPHERE = VectorQuantizer(num_codes=8, dimension=3, decay=0.9)
GRADIENT = VectorQuantizer(num_codes=8, dimension=3, decay=0.9, metric=Euclidean(), codebook=GradientCodebook)
k_means = jax.jit(lambda z, mask, key: KMeansStart(20)(z, mask.astype(jnp.float32), 8, Euclidean(), key))


@functools.cache
def _started(quantizer, tokens=64):
    """A batch, and the variables after a first training step on it."""
    z = normal(tokens, quantizer.dimension)
    return z, train(quantizer, init(quantizer, KEY(1), (tokens, quantizer.dimension)), z, KEY(2))[1]


def _vectors(quantizer, variables):
    return np.asarray(lookup(quantizer, variables, jnp.arange(quantizer.num_codes)[:, None]))


def test_the_first_batch_fills_the_codebook_with_its_own_tokens():
    z, variables = _started(GRADIENT)
    distances = np.linalg.norm(_vectors(GRADIENT, variables)[:, None] - z[None], axis=-1)
    assert distances.min(axis=1).max() < 0.01
    assert len(set(distances.argmin(axis=1))) == 8


@pytest.mark.parametrize('quantizer', [PLAIN, SPHERE])
def test_averages_move_as_the_closed_form(quantizer):
    """Reference case 16, arXiv:1711.00937, appendix A.1, in float64."""
    z, variables = _started(quantizer)
    before = jax.tree.map(lambda x: np.asarray(x, np.float64), variables['codebook'])
    out, after = train(quantizer, variables, z + 0.1, KEY(1))
    codes, values = np.asarray(out.codes)[:, 0], np.asarray(quantizer.metric.values(z + 0.1), np.float64)
    counts = 0.9 * before['counts'] + 0.1 * np.bincount(codes, minlength=8)
    sums = 0.9 * before['sums'] + 0.1 * np.stack([values[codes == k].sum(0) for k in range(8)])
    np.testing.assert_allclose(after['codebook']['counts'], counts, rtol=1e-5)
    np.testing.assert_allclose(after['codebook']['sums'], sums, atol=1e-5)
    smoothed = (counts + 1e-5) / (counts.sum() + 8e-5) * counts.sum()
    expected = quantizer.metric.values(jnp.asarray(sums / smoothed[:, None], jnp.float32))
    np.testing.assert_allclose(_vectors(quantizer, after), expected, atol=1e-5)


def test_k_means_starts_with_sums_and_counts_that_agree():
    """Reference case 17: a peer's codebook norm falls from 6.24 to 0.12 in the step after."""
    quantizer = PLAIN.clone(start=KMeansStart(20), dead_share=0.0)
    centres = 5 * normal(8, 3, seed=3)
    z = np.repeat(centres, 8, axis=0) + 0.01 * normal(64, 3)
    _, variables = train(quantizer, init(quantizer, KEY(1), (64, 3)), z, KEY(0))
    first = _vectors(quantizer, variables)
    codes = quantize(quantizer, variables, z).codes[:, 0]
    for code in np.unique(codes):
        np.testing.assert_allclose(first[code], z[codes == code].mean(0), atol=1e-3)
    _, variables = train(quantizer, variables, z, KEY(1))
    np.testing.assert_allclose(np.linalg.norm(_vectors(quantizer, variables)), np.linalg.norm(first), rtol=1e-3)


@pytest.mark.parametrize('case', ['equal', 'two', 'hidden'])
def test_k_means_of_few_different_points_is_finite(case):
    """Reference case 18: all points equal, duplicates, fewer visible points than codes."""
    z = {'equal': np.ones((64, 3)), 'two': np.sign(normal(64, 1)) * np.ones((1, 3)), 'hidden': normal(64, 3)}[case]
    mask = np.arange(64) < (5 if case == 'hidden' else 64)
    centres, counts = k_means(z.astype(np.float32), mask, KEY(0))
    assert np.isfinite(centres).all() and (np.asarray(counts) > 0).all()
    assert np.linalg.norm(z[mask][:, None] - centres[None], axis=-1).min(axis=1).max() < 0.01


def test_dead_codes_are_replaced_with_their_counts_and_sums_together_and_live_on():
    """Reference case 20: in a peer the stale average overwrites the new code in the same step."""
    for quantizer in (PLAIN, SPHERE, GRADIENT):
        z, variables = _started(quantizer)
        far = z + np.float32(5)
        # A code where no token is.
        place = 'shift' if quantizer is GRADIENT else 'codes'
        nowhere = quantizer.metric.values(jnp.full(3, -1e3))
        state = variables['codebook']
        state = state | {'counts': state['counts'].at[2].set(1e-4), place: state[place].at[2].set(nowhere)}
        out, after = train(quantizer, variables | {'codebook': state}, far, KEY(3))
        assert float(out.metrics['revived']) >= 1
        share = float(after['codebook']['counts'].sum()) / 8
        assert float(after['codebook']['counts'][2]) > 0.8 * share
        revived = _vectors(quantizer, after)[2]
        assert np.linalg.norm(revived - np.asarray(quantizer.metric.values(far)), axis=-1).min() < 0.05
        _, later = train(quantizer, after, far, KEY(4))
        assert np.linalg.norm(_vectors(quantizer, later)[2] - revived) < 0.5 * np.linalg.norm(revived)


def test_nothing_changes_outside_of_training():
    """Reference cases 20 and 23: a frozen codebook is a quantizer that does not train."""
    z, variables = _started(SPHERE)
    _, changed = jax.jit(lambda v: SPHERE.apply(v, z, mutable=['codebook']))(variables)
    jax.tree.map(np.testing.assert_array_equal, changed['codebook'], variables['codebook'])


def test_dead_codes_mean_the_same_at_every_batch_size():
    """The threshold is relative (issue 82 of WavTokenizer): repeating every token changes no decision."""
    z, variables = _started(SPHERE)
    counts = variables['codebook']['counts'] * np.float32([1, 1, 0.1, 1, 0.05, 1, 1, 0])
    rare = variables['codebook'] | {'counts': counts}
    once, _ = train(SPHERE, variables | {'codebook': rare}, z, KEY(1))
    scaled = rare | {name: rare[name] * 3 for name in ('sums', 'counts')}
    thrice, _ = train(SPHERE, variables | {'codebook': scaled}, np.tile(z, (3, 1)), KEY(1))
    assert float(once.metrics['revived']) == float(thrice.metrics['revived'])


def test_a_batch_smaller_than_the_codebook_kills_no_code_that_is_in_use():
    """Reference case 20: 24 tokens a step for 64 codes in equal use; an absolute threshold of 2 kills them all."""
    quantizer = VectorQuantizer(num_codes=64, dimension=4, start=NormalStart())
    variables = init(quantizer, KEY(0), (24, 4))
    tokens, revived = normal(64, 4), 0.0
    codes = np.asarray(normalise(tokens))
    state = variables['codebook'] | {'sums': codes * 24 / 64, 'codes': codes, 'counts': jnp.full(64, 24 / 64),
                                       'initialised': jnp.asarray(True)}
    variables = variables | {'codebook': state}
    for step in range(8):
        out, variables = train(quantizer, variables, tokens[(np.arange(24) + 24 * step) % 64], KEY(step))
        revived += float(out.metrics['revived'])
    assert revived == 0


def test_draws_depend_on_the_key_alone_and_repeat_only_when_they_must():
    """Reference case 21."""
    flat, weights = jnp.asarray(normal(20, 3)), jnp.asarray(np.arange(20) < 12, jnp.float32)
    draw = jax.jit(draw_tokens, static_argnums=2)
    drawn = draw(flat, weights, 12, KEY(0))
    np.testing.assert_array_equal(drawn, draw(flat, weights, 12, KEY(0)))
    rows = np.linalg.norm(np.asarray(drawn)[:, None] - flat[None], axis=-1).argmin(1)
    assert sorted(rows) == list(range(12))
    # Every place of a grid of four is drawn, though one token of every four is.
    places = np.arange(20) % 4
    few = draw(jnp.asarray(np.repeat(places[:, None], 3, axis=1), jnp.float32), jnp.ones(20), 5, KEY(0))
    assert len(np.unique(np.round(few))) > 2
    again = draw(flat, weights, 30, KEY(0))
    assert len(np.unique(np.asarray(again), axis=0)) == 30


def test_hidden_tokens_change_nothing():
    """Reference case 25: state, loss and metrics are those of the visible tokens alone."""
    z, variables = _started(PLAIN)
    mask = np.arange(64) < 40
    alone, expected = train(PLAIN, variables, z[:40], KEY(0))
    for filler in (0.0, np.inf):
        out, after = train(PLAIN, variables, np.where(mask[:, None], z, filler), KEY(0), mask)
        np.testing.assert_allclose(out.loss, alone.loss, rtol=1e-6)
        np.testing.assert_allclose(out.metrics['perplexity'], alone.metrics['perplexity'], rtol=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after, expected)


def test_a_step_that_sees_nothing_changes_nothing():
    """Inside of jit a mask that hides everything cannot be refused."""
    z, variables = _started(PLAIN)
    out, after = train(PLAIN, variables, z, KEY(0), np.zeros(64, bool))
    jax.tree.map(np.testing.assert_array_equal, after, variables)
    assert float(out.loss) == 0


def test_the_encoder_is_drawn_to_its_code_and_the_codebook_to_its_tokens():
    """Reference case 15: commitment on the encoder, 1 on the codebook, both means over elements."""
    z, variables = _started(GRADIENT)

    def loss(z, params):
        return GRADIENT.apply(variables | {'params': params}, z).loss

    by_latent, by_code = jax.jit(jax.grad(loss, argnums=(0, 1)))(z, variables['params'])
    out = quantize(GRADIENT, variables, z)
    codes, error = np.asarray(out.codes)[:, 0], (z - np.asarray(out.vectors)).astype(np.float64)
    np.testing.assert_allclose(by_latent, 0.25 * 2 * error / error.size, atol=1e-7)
    expected = np.stack([-2 * error[codes == k].sum(0) / error.size for k in range(8)])
    np.testing.assert_allclose(by_code['codes'], expected, atol=1e-6)
    np.testing.assert_allclose(out.loss, 1.25 * np.mean(error**2), rtol=1e-5)


def test_averaged_codes_get_no_gradient_and_the_latent_gets_the_decoders():
    """Reference case 13: through the unit sphere the gradient is that of normalisation."""
    quantizer = SPHERE.clone(commitment=0.0)
    z, variables = _started(SPHERE)
    weights = normal(64, 3, seed=5)
    through = jax.jit(jax.grad(lambda z: (quantizer.apply(variables, z).vectors * weights).sum()))(z)
    np.testing.assert_allclose(through, jax.grad(lambda z: (normalise(z) * weights).sum())(z), atol=1e-6)
    assert 'params' not in variables


def test_a_zero_latent_on_the_sphere_is_finite():
    """Reference case 12."""
    _, variables = _started(SPHERE)
    z = np.zeros((2, 3), np.float32)
    out, gradient = jax.jit(jax.value_and_grad(lambda z: SPHERE.apply(variables, z).vectors.sum()))(z)
    assert np.isfinite(out) and np.isfinite(gradient).all()


def test_codes_on_the_sphere_have_unit_length_in_every_way_out():
    """Reference case 12: MAGVIT decodes other vectors than it trained with."""
    z, variables = _started(SPHERE)
    np.testing.assert_allclose(np.linalg.norm(_vectors(SPHERE, variables), axis=-1), 1, atol=1e-6)
    np.testing.assert_array_equal(quantize(SPHERE, variables, z).vectors,
                                  lookup(SPHERE, variables, quantize(SPHERE, variables, z).codes))


def test_angular_codes_are_chosen_by_direction_and_keep_their_length():
    quantizer = PLAIN.clone(metric=Angular())
    z, variables = _started(PLAIN)
    codes = _vectors(quantizer, variables).astype(np.float64)
    unit = codes / np.linalg.norm(codes, axis=-1, keepdims=True)
    np.testing.assert_array_equal(quantize(quantizer, variables, 7 * z).codes[:, 0], (z @ unit.T).argmax(1))
    assert np.linalg.norm(codes, axis=-1).std() > 0.1


def test_a_codebook_may_learn_through_its_estimator_alone():
    """DiVeQ (arXiv:2509.26469) needs no codebook loss."""
    quantizer = GRADIENT.clone(codebook=functools.partial(GradientCodebook, weight=0.0), commitment=0.0,
                               estimator=DirectionalNoise())
    z, variables = _started(GRADIENT)

    def loss(params):
        out, _ = quantizer.apply(variables | {'params': params}, z, train=True, key=KEY(0), mutable=['codebook'])
        return jnp.sum(out.vectors**2) + out.loss

    assert float(jnp.abs(jax.jit(jax.grad(loss))(variables['params'])['codes']).max()) > 0


def test_orthogonality_is_zero_for_orthogonal_codes_and_largest_for_equal_ones():
    """arXiv:2112.00384, eq. 2."""
    assert float(orthogonality(jnp.eye(4))) == pytest.approx(0, abs=1e-6)
    assert float(orthogonality(jnp.ones((4, 3)))) == pytest.approx(1 - 1 / 4, abs=1e-6)


def test_a_token_has_the_same_code_alone_and_in_a_batch():
    """Reference case 38."""
    z, variables = _started(SPHERE)
    whole = quantize(SPHERE, variables, z).codes
    np.testing.assert_array_equal(quantize(SPHERE, variables, z[7:8]).codes, whole[7:8])


@pytest.mark.parametrize('shape', [(0, 3), (1, 3), (2, 0, 3)])
def test_one_token_and_none(shape):
    """Reference case 45."""
    _, variables = _started(PLAIN)
    out = quantize(PLAIN, variables, np.zeros(shape, np.float32))
    assert out.codes.shape == (*shape[:-1], 1) and np.isfinite(out.loss)


def test_remat_changes_the_state_once():
    """Reference case 22, second half."""
    z, variables = _started(PLAIN)
    call = lambda z: PLAIN.apply(variables, z, train=True, key=KEY(0), mutable=['codebook'])[1]['codebook']['steps']
    assert int(jax.jit(jax.checkpoint(call))(z)) == int(variables['codebook']['steps']) + 1


def test_two_hundred_steps_in_half_precision_compile_once_and_stay_finite():
    """Reference cases 42, 44: nothing is traced again after the codebook has started."""
    variables, z = init(PLAIN, KEY(1), (64, 3)), jnp.asarray(normal(64, 3), jnp.bfloat16)
    compiled = train._cache_size()
    for step in range(200):
        out, variables = train(PLAIN, variables, z, KEY(step))
    assert train._cache_size() == compiled + 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((out, variables)))


def test_training_goes_on_from_a_copy_to_the_last_bit():
    """Reference case 26: the state is all there is."""
    z, variables = _started(PLAIN)
    _, straight = train(PLAIN, train(PLAIN, variables, z, KEY(5))[1], z, KEY(6))
    saved = jax.tree.map(np.array, train(PLAIN, variables, z, KEY(5))[1])
    _, resumed = train(PLAIN, saved, z, KEY(6))
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)


def test_bad_input_is_named():
    z, variables = _started(PLAIN)
    with pytest.raises(UserError, match='num_codes is 1'):
        VectorQuantizer(num_codes=1)
    with pytest.raises(UserError, match='NaN or infinity'):
        PLAIN.apply(variables, np.full((2, 3), np.nan, np.float32))
    with pytest.raises(UserError, match='hides every token'):
        PLAIN.apply(variables, z, mask=np.zeros(64, bool))
    with pytest.raises(UserError, match=r'6 tokens .* num_codes=8'):
        PLAIN.apply(variables, z[:6], train=True, key=KEY(0), mutable=['codebook'])
    with pytest.raises(UserError, match='key'):
        PLAIN.apply(variables, z, train=True, mutable=['codebook'])
    with pytest.raises(AssertionError, match='as wide as the quantizer'):
        PLAIN.apply(variables, z[:, :2])
    with pytest.raises(AssertionError, match='shape of the tokens'):
        PLAIN.apply(variables, z, mask=np.ones(63, bool))


@pytest.mark.parametrize('quantizer', [PLAIN, SPHERE])
@pytest.mark.parametrize('fault', [np.nan, np.inf])
def test_latents_that_are_not_finite_have_no_code_and_spoil_the_loss(quantizer, fault):
    """Inside of jit, where nothing can be raised: the finite guard of the training step sees the loss."""
    z, variables = _started(quantizer)
    out = quantize(quantizer, variables, np.where(np.arange(64)[:, None] == 5, np.float32(fault), z))
    assert int(out.codes[5, 0]) == -1 and int(out.codes.max()) < 8 and (np.delete(out.codes, 5) >= 0).all()
    assert not np.isfinite(out.loss)
    assert not np.isfinite(out.vectors[5]).all()


def test_cosine_and_its_metric_are_one_thing():
    assert VectorQuantizer().metric == Cosine()
