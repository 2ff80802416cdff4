import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers import VectorQuantizer, nearest_code
from vqdit.tokenizers.quantizers.vector import normalise


def _train(quantizer, z, variables, key):
    out, changed = quantizer.apply(variables, z, train=True, key=key, mutable=['codebook'])
    return out, {'codebook': changed['codebook']}


def _started(quantizer, seed=0):
    z = jax.random.normal(jax.random.key(seed), (64, quantizer.dimension))
    return z, quantizer.init(jax.random.key(1), z)


def test_nearest_code_is_the_nearest_and_the_first_of_equals():
    rng = np.random.default_rng(0)
    vectors, codebook = rng.normal(size=(200, 4)), rng.normal(size=(50, 4))
    codebook[30] = codebook[7]
    expected = ((vectors[:, None] - codebook[None]) ** 2).sum(-1).argmin(1)
    found = np.asarray(nearest_code(jnp.asarray(vectors, jnp.float32), jnp.asarray(codebook, jnp.float32)))
    np.testing.assert_array_equal(found, expected)
    assert 7 in found and 30 not in found


def test_the_first_batch_fills_the_codebook_with_its_own_directions():
    quantizer = VectorQuantizer(num_codes=16, dimension=4, dead_share=0.0, decay=1.0)
    z, variables = _started(quantizer)
    _, variables = _train(quantizer, z, variables, jax.random.key(2))
    codebook = normalise(variables['codebook']['sums'])
    similarity = np.asarray(codebook @ normalise(z).T).max(axis=1)
    assert similarity.min() > 0.99
    np.testing.assert_allclose(variables['codebook']['counts'], 64 / 16, rtol=1e-6)


def test_averages_move_as_the_closed_form():
    """Counts and sums: m <- decay m + (1 - decay) batch (van den Oord et al. 2017, appendix A.1), in float64."""
    quantizer = VectorQuantizer(num_codes=8, dimension=3, decay=0.9, dead_share=0.0)
    z, variables = _started(quantizer)
    _, variables = _train(quantizer, z, variables, jax.random.key(0))
    before = jax.tree.map(lambda x: np.asarray(x, np.float64), variables['codebook'])
    out, after = _train(quantizer, z + 0.1, variables, jax.random.key(1))
    codes, unit = np.asarray(out.codes)[:, 0], np.asarray(normalise(z + 0.1), np.float64)
    counts = 0.9 * before['counts'] + 0.1 * np.bincount(codes, minlength=8)
    sums = 0.9 * before['sums'] + 0.1 * np.stack([unit[codes == k].sum(0) for k in range(8)])
    np.testing.assert_allclose(after['codebook']['counts'], counts, rtol=1e-5)
    np.testing.assert_allclose(after['codebook']['sums'], sums, atol=1e-5)


def test_a_dead_code_is_replaced_with_its_counts_and_sums_together():
    quantizer = VectorQuantizer(num_codes=4, dimension=3, decay=0.5, dead_share=0.5)
    z, variables = _started(quantizer)
    _, variables = _train(quantizer, z, variables, jax.random.key(0))
    state = variables['codebook']
    away = jnp.zeros(3).at[0].set(1.0)
    state = state | {'sums': state['sums'].at[2].set(1e-4 * away), 'counts': state['counts'].at[2].set(1e-4)}
    cluster = jnp.tile(jnp.array([[-1.0, 0.5, 0.0]]), (64, 1)) + 0.1 * z
    out, after = _train(quantizer, cluster, {'codebook': state}, jax.random.key(3))
    share = float(after['codebook']['counts'].sum()) / 4
    assert float(out.metrics['revived']) >= 1
    assert float(after['codebook']['counts'][2]) > 0.4 * share
    length = float(jnp.linalg.norm(after['codebook']['sums'][2]) / after['codebook']['counts'][2])
    assert length == pytest.approx(1, abs=1e-3)


def test_dead_codes_mean_the_same_at_every_batch_size():
    """The threshold is relative: repeating every token changes no decision."""
    quantizer = VectorQuantizer(num_codes=16, dimension=4, decay=0.9)
    z, variables = _started(quantizer)
    _, variables = _train(quantizer, z, variables, jax.random.key(0))
    once, _ = _train(quantizer, z, variables, jax.random.key(1))
    state = variables['codebook']
    scaled = {'codebook': state | {name: state[name] * 3 for name in ('sums', 'counts')}}
    thrice, _ = _train(quantizer, jnp.tile(z, (3, 1)), scaled, jax.random.key(1))
    assert float(once.metrics['revived']) == float(thrice.metrics['revived'])


def test_hidden_tokens_change_nothing():
    quantizer = VectorQuantizer(num_codes=8, dimension=3)
    z, variables = _started(quantizer)
    mask = jnp.arange(64) < 40
    runs = [quantizer.apply(variables, z.at[40:].set(filler), train=True, mask=mask, key=jax.random.key(0),
                            mutable=['codebook']) for filler in (0.0, 9.0)]
    for name in ('sums', 'counts'):
        np.testing.assert_array_equal(runs[0][1]['codebook'][name], runs[1][1]['codebook'][name])
    assert float(runs[0][0].loss) == pytest.approx(float(runs[1][0].loss))


def test_decoding_from_codes_is_decoding_from_vectors():
    quantizer = VectorQuantizer(num_codes=32, dimension=4)
    z, variables = _started(quantizer)
    _, variables = _train(quantizer, z, variables, jax.random.key(0))
    out = quantizer.apply(variables, z)
    looked_up = quantizer.apply(variables, out.codes, method='lookup')
    np.testing.assert_allclose(out.vectors, looked_up, atol=1e-6)


def test_gradient_passes_straight_through_the_unit_sphere():
    quantizer = VectorQuantizer(num_codes=8, dimension=3, commitment=0.0)
    z, variables = _started(quantizer)
    _, variables = _train(quantizer, z, variables, jax.random.key(0))
    weights = jax.random.normal(jax.random.key(5), z.shape)
    through = jax.grad(lambda z: (quantizer.apply(variables, z).vectors * weights).sum())(z)
    sphere = jax.grad(lambda z: (normalise(z) * weights).sum())(z)
    np.testing.assert_allclose(through, sphere, atol=1e-6)


def test_eight_devices_are_one_device():
    quantizer = VectorQuantizer(num_codes=16, dimension=4, dead_share=0.5)
    z, variables = _started(quantizer)
    mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
    step = jax.jit(lambda z, variables, key: _train(quantizer, z, variables, key))
    states = []
    for spec in (PartitionSpec(), PartitionSpec('data')):
        state = variables
        for i in range(5):
            batch = jax.device_put(z + 0.3 * i, NamedSharding(mesh, spec))
            _, state = step(batch, state, jax.random.key(i))
        states.append(jax.device_get(state))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *states)


def test_one_code_is_no_codebook():
    with pytest.raises(UserError, match='num_codes'):
        VectorQuantizer(num_codes=1)
