import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vqdit.training import fingerprint

MODULUS = 2**32


def oracle(words: np.ndarray) -> tuple[int, int]:
    """The definition, in Python's unbounded integers."""
    values = [int(word) for word in words.ravel()]
    return sum(values) % MODULUS, sum(w * (2 * i + 1) for i, w in enumerate(values)) % MODULUS


@pytest.mark.parametrize('shape', [(), (7,), (3, 5), (2, 1, 4, 3)])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int8', 'uint8', 'int32', 'bool', 'complex64'])
def test_sums_are_those_of_the_definition(shape, dtype):
    array = np.array(np.random.default_rng(0).normal(size=shape) * 100).astype(jnp.dtype(dtype))
    words = np.atleast_1d(array).view(f'u{min(array.itemsize, 4)}')
    assert fingerprint.fingerprint({'a': jnp.asarray(array)}) == {'a': oracle(words)}


def test_float64_is_two_words_an_element():
    array = np.random.default_rng(0).normal(size=(4, 3))
    assert fingerprint.fingerprint(array) == {'value': oracle(array.view(np.uint32))}


@pytest.mark.parametrize('spec', [(), ('data',), ('tensor', 'data'), (('data', 'tensor'),), (None, 'tensor')])
def test_sharding_does_not_matter(spec):
    mesh = jax.make_mesh((4, 2), ('data', 'tensor'), axis_types=(AxisType.Auto,) * 2)
    array = np.random.default_rng(2).normal(size=(8, 16, 3)).astype(np.float32)
    sharded = jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))
    assert fingerprint.fingerprint([sharded]) == fingerprint.fingerprint([array])


@pytest.mark.parametrize('kind', [np.asarray, jnp.asarray])
def test_what_every_process_has_whole_is_counted_by_the_first_alone(monkeypatch, kind):
    array = kind(np.arange(1, 6, dtype=np.int32))
    assert fingerprint.fingerprint([array]) == {'0': oracle(np.asarray(array))}
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    assert fingerprint.fingerprint([array]) == {'0': (0, 0)}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int8'])
def test_every_single_flipped_bit_changes_both_sums(dtype):
    array = (np.random.default_rng(1).normal(size=(3, 4)) * 9).astype(jnp.dtype(dtype))
    before = fingerprint.fingerprint(array)['value']
    for bit in range(array.nbytes * 8):
        flipped = bytearray(array.tobytes())
        flipped[bit // 8] ^= 1 << bit % 8
        after = fingerprint.fingerprint(np.frombuffer(flipped, array.dtype).reshape(array.shape))['value']
        assert after[0] != before[0] and after[1] != before[1]


def test_exchanged_elements_are_seen():
    one, two = jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 3.0, 2.0])
    assert fingerprint.fingerprint(one)['value'][0] == fingerprint.fingerprint(two)['value'][0]
    assert fingerprint.fingerprint(one)['value'][1] != fingerprint.fingerprint(two)['value'][1]


def test_digest_depends_on_path_dtype_shape_and_value_only():
    tree = {'b': jnp.zeros((2, 3)), 'a': [jnp.ones(2, jnp.int32)]}
    same = {'a': [jnp.ones(2, jnp.int32)], 'b': jnp.zeros((2, 3))}
    others = [
        {**tree, 'b': jnp.zeros((3, 2))},
        {**tree, 'b': jnp.zeros((2, 3), jnp.int32)},
        {**tree, 'a': [jnp.array([1, 2])]},
        {'c': tree['b'], 'a': tree['a']},
    ]
    names = {fingerprint.digest(other) for other in others}
    assert fingerprint.digest(same) == fingerprint.digest(tree)
    assert len(names | {fingerprint.digest(tree)}) == 5
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'complex64'])
def test_non_finite_leaf_is_reported(dtype, value):
    tree = {'good': jnp.ones(3, dtype), 'bad': jnp.ones(3, dtype).at[1].set(value), 'whole': jnp.arange(3)}
    assert {path: summary.finite for path, summary in fingerprint.summarize(tree).items()} == {
        'good': True,
        'bad': False,
        'whole': True,
    }


@pytest.mark.parametrize('leaf', [3, 'text', jax.random.key(0)])
def test_leaves_that_are_no_arrays_are_refused_by_path(leaf):
    with pytest.raises(TypeError, match='state/it'):
        fingerprint.fingerprint({'state': {'it': leaf}})


def test_two_leaves_of_one_stored_name_are_refused():
    with pytest.raises(TypeError, match='rename'):
        fingerprint.fingerprint({'a.b': jnp.ones(1), 'a': {'b': jnp.ones(1)}})
