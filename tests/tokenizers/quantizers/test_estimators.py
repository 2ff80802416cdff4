import jax
import jax.numpy as jnp
import numpy as np
import pytest
from driver import normal

from vqdit.errors import UserError
from vqdit.tokenizers.quantizers.estimators import (
    CodeOnly,
    DirectionalNoise,
    NoiseSubstitution,
    Rotation,
    StraightThrough,
    straight_through,
)

Z, Q, KEY = normal(6, 4), normal(6, 4, seed=1), jax.random.key(0)


def _jacobian(estimator, z, quantized):
    """d vectors / d z of one vector, [D, D], and d vectors / d quantized."""
    return jax.jit(jax.jacobian(lambda z, q: estimator(z, q, KEY), argnums=(0, 1)))(z, quantized)


@pytest.mark.parametrize('estimator', [StraightThrough(), Rotation(), CodeOnly()])
def test_exact_estimators_return_the_code_to_the_last_bit(estimator):
    np.testing.assert_array_equal(jax.jit(estimator)(1e3 * Z, Q, KEY), Q)


def test_the_gradient_goes_straight_through_and_the_codebook_gets_none():
    """Reference case 13: d z_q / d z = I exactly."""
    by_latent, by_code = _jacobian(StraightThrough(), Z[0], Q[0])
    np.testing.assert_array_equal(by_latent, np.eye(4))
    np.testing.assert_array_equal(by_code, 0)


def test_rotation_turns_the_gradient_as_it_turns_the_latent():
    """Reference case 14: the Jacobian is the scaled rotation from latent to code, computed in float64."""
    z, q = Z[1].astype(np.float64), Q[1].astype(np.float64)
    u, v = z / np.linalg.norm(z), q / np.linalg.norm(q)
    w = (u + v) / np.linalg.norm(u + v)
    rotation = np.eye(4) - 2 * np.outer(w, w) + 2 * np.outer(v, u)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(4), atol=1e-12)
    by_latent, by_code = _jacobian(Rotation(), Z[1], Q[1])
    np.testing.assert_allclose(by_latent, rotation * np.linalg.norm(q) / np.linalg.norm(z), atol=1e-6)
    np.testing.assert_array_equal(by_code, 0)


@pytest.mark.parametrize('zero', ['latent', 'code'])
def test_rotation_of_a_zero_vector_goes_straight_through(zero):
    """Reference case 14: a peer returns 0 for a zero latent, and no gradient."""
    z, q = (0 * Z[0], Q[0]) if zero == 'latent' else (Z[0], 0 * Q[0])
    np.testing.assert_array_equal(Rotation()(z, q, None), q)
    np.testing.assert_array_equal(_jacobian(Rotation(), z, q)[0], np.eye(4))


def test_rotation_by_half_a_turn_is_finite_and_orthogonal():
    """Reference case 14: latent and code point in opposite directions."""
    by_latent, _ = _jacobian(Rotation(), Z[0], -Z[0])
    np.testing.assert_allclose(np.asarray(by_latent) @ np.asarray(by_latent).T, np.eye(4), atol=1e-5)
    np.testing.assert_allclose(by_latent @ Z[0], -Z[0], atol=1e-5)


def test_directional_noise_without_noise_is_the_code_and_teaches_both_sides():
    """arXiv:2509.26469: the gradient of |q - z| d, with d held still."""
    estimator = DirectionalNoise(variance=0.0)
    np.testing.assert_allclose(estimator(Z, Q, KEY), Q, atol=1e-5)
    by_latent, by_code = _jacobian(estimator, Z[0], Q[0])
    direction = (Q[0] - Z[0]) / np.linalg.norm(Q[0] - Z[0])
    np.testing.assert_allclose(by_code, np.outer(direction, direction), atol=1e-5)
    np.testing.assert_allclose(by_latent, np.eye(4) - np.outer(direction, direction), atol=1e-5)


def test_substituted_noise_is_as_long_as_the_error():
    """doi:10.1109/ACCESS.2022.3157880."""
    out = NoiseSubstitution()(Z, Q, KEY)
    np.testing.assert_allclose(np.linalg.norm(out - Z, axis=-1), np.linalg.norm(Q - Z, axis=-1), rtol=1e-5)
    assert not np.allclose(out, NoiseSubstitution()(Z, Q, jax.random.key(1)))


@pytest.mark.parametrize('estimator', [DirectionalNoise(), NoiseSubstitution()])
def test_a_latent_on_its_code_has_finite_gradients(estimator):
    for gradient in _jacobian(estimator, Z[0], Z[0]):
        assert np.isfinite(gradient).all()


def test_noise_without_a_key_is_refused():
    with pytest.raises(UserError, match='key'):
        NoiseSubstitution()(Z, Q, None)


def test_straight_through_of_huge_latents_loses_no_digit():
    """`z + (q - z)` would: at 1e8 it returns multiples of 8."""
    np.testing.assert_array_equal(straight_through(jnp.full(3, 1e8), jnp.asarray([0.1, 0.2, 0.3])),
                                  np.float32([0.1, 0.2, 0.3]))
