import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from driver import init, lookup, normal, quantize, train

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer, Grouped, Remapped, VectorQuantizer
from vqdit.tokenizers.quantizers.metrics import Euclidean
from vqdit.tokenizers.quantizers.remapped import used_codes

INNER = VectorQuantizer(num_codes=16, dimension=3, metric=Euclidean())
Z = normal(64, 3)


@functools.cache
def _trained():
    """Variables of a quantizer after a step, and the codes of three clusters of its tokens."""
    _, variables = train(INNER, init(INNER, jax.random.key(0), (64, 3)), Z, jax.random.key(1))
    return variables, np.asarray(quantize(INNER, variables, Z).codes)


def _with_map(variables, kept):
    return variables | {'codebook': variables['codebook'] | {'kept': jnp.asarray(kept, jnp.int32)}}


def test_kept_codes_are_renumbered_without_gaps_and_decode_to_the_same_vectors():
    variables, codes = _trained()
    kept = used_codes(codes, 16)
    outer, mapped = Remapped(INNER, len(kept)), _with_map(variables, kept)
    out = quantize(outer, mapped, Z)
    np.testing.assert_array_equal(kept[out.codes], codes)
    np.testing.assert_array_equal(out.vectors, quantize(INNER, variables, Z).vectors)
    np.testing.assert_array_equal(lookup(outer, mapped, out.codes), out.vectors)


def test_a_token_whose_code_is_not_kept_gets_the_code_nearest_to_its_own():
    variables, codes = _trained()
    kept = np.array([2, 5, 11])
    outer, mapped = Remapped(INNER, 3), _with_map(variables, kept)
    table = np.asarray(variables['codebook']['codes'], np.float64)
    nearest = ((table[:, None] - table[kept][None]) ** 2).sum(-1).argmin(1)
    out = quantize(outer, mapped, Z)
    np.testing.assert_array_equal(out.codes, nearest[codes])
    np.testing.assert_array_equal(lookup(outer, mapped, out.codes), out.vectors)
    broken = quantize(outer, mapped, np.where(np.arange(64)[:, None] == 3, np.float32(np.nan), Z))
    assert int(broken.codes[3, 0]) == -1 and int(broken.codes.max()) < 3


def test_the_gradient_is_that_of_the_quantizer():
    variables, _ = _trained()
    outer = Remapped(INNER, 3)
    weights = normal(64, 3, seed=4)
    slope = lambda quantizer, v: jax.jit(jax.grad(lambda z: jnp.sum(quantizer.apply(v, z).vectors * weights)))(Z)
    np.testing.assert_array_equal(slope(outer, _with_map(variables, [0, 1, 2])), slope(INNER, variables))


def test_quantizers_without_state_are_remapped_too():
    scalars = FiniteScalarQuantizer((5, 5))
    outer = Remapped(scalars, 4)
    variables = init(outer, jax.random.key(0), (2, 2))
    np.testing.assert_array_equal(variables['codebook']['kept'], np.arange(4))
    assert int(quantize(outer, variables, normal(50, 2)).codes.max()) < 4 and outer.bits_per_token == 2


def test_codes_are_used_when_they_are_seen_often_enough():
    np.testing.assert_array_equal(used_codes(np.array([[3, 3], [7, 0]]), 9), [0, 3, 7])
    np.testing.assert_array_equal(used_codes(np.array([[3, 3], [7, 0]]), 9, least=2), [3])


@pytest.mark.parametrize('make', [lambda: Remapped(INNER, 17), lambda: Remapped(INNER, 1),
                                  lambda: Remapped(Grouped((INNER, INNER.clone())), 4)])
def test_maps_that_cannot_be_are_refused(make):
    with pytest.raises(UserError, match='codes'):
        make()
