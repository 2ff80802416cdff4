"""LPIPS on random weights of the right arithmetic, against an independent float64 one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate

from vqdit.errors import DataError, UserError
from vqdit.tokenizers.losses.perceptual import STAGES, PerceptualWeights, perceptual_loss, read_perceptual_weights

RNG = np.random.default_rng(0)
WIDTH = 2
KERNELS = [RNG.normal(size=(3, 3, 3 if i == 0 else WIDTH, WIDTH)) * 0.4 for i in range(sum(STAGES))]
BIASES = [RNG.normal(size=WIDTH) * 0.1 for _ in KERNELS]
TAPS = [RNG.uniform(size=WIDTH) for _ in STAGES]
WEIGHTS = PerceptualWeights(*(tuple(jnp.asarray(x, jnp.float32) for x in part) for part in (KERNELS, BIASES, TAPS)))
IMAGES = RNG.uniform(-1, 1, (2, 1, 32, 36, 3))
distance = jax.jit(perceptual_loss)


def _features(image):
    """Features of one image [H, W, 3], by correlation channel by channel."""
    x = (image - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]
    found, layer = [], 0
    for stage, count in enumerate(STAGES):
        if stage:
            height, width = x.shape[0] // 2, x.shape[1] // 2
            x = x[:2 * height, :2 * width].reshape(height, 2, width, 2, -1).max(axis=(1, 3))
        for _ in range(count):
            kernel, bias = KERNELS[layer], BIASES[layer]
            x = np.stack([sum(correlate(x[..., i], kernel[..., i, o], mode='constant') for i in range(x.shape[-1]))
                          + bias[o] for o in range(WIDTH)], axis=-1)
            x, layer = np.maximum(x, 0), layer + 1
        found.append(x)
    return found


def test_the_distance_is_that_of_normalised_weighted_features():
    """Reference case 34, arXiv:1801.03924, eq. 1."""
    unit = lambda x: x / (np.sqrt(np.sum(x**2, axis=-1, keepdims=True)) + 1e-10)
    pairs = zip(_features(IMAGES[0, 0]), _features(IMAGES[1, 0]), TAPS)
    expected = sum(np.mean(np.sum((unit(a) - unit(b)) ** 2 * tap, axis=-1)) for a, b, tap in pairs)
    a, b = (np.asarray(x, np.float32) for x in IMAGES)
    assert float(distance(WEIGHTS, a, b)) == pytest.approx(expected, rel=1e-4)
    assert float(distance(WEIGHTS, a, a)) < 1e-12


def test_grey_images_stand_for_all_colours_and_the_gradient_is_finite():
    grey = np.asarray(IMAGES[0, ..., :1], np.float32)
    assert np.isfinite(jax.jit(jax.grad(perceptual_loss, argnums=1))(WEIGHTS, grey, grey + 0.1)).all()


def test_small_images_are_refused():
    with pytest.raises(UserError, match='too small for LPIPS'):
        perceptual_loss(WEIGHTS, jnp.zeros((1, 28, 28, 1)), jnp.zeros((1, 28, 28, 1)))


def test_weights_come_from_a_file(tmp_path):
    arrays = {f'conv{i}.kernel': x for i, x in enumerate(KERNELS)} | {f'conv{i}.bias': x for i, x in enumerate(BIASES)}
    np.savez(tmp_path / 'lpips.npz', **arrays, **{f'tap{i}': x for i, x in enumerate(TAPS)})
    read = read_perceptual_weights(tmp_path / 'lpips.npz')
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.allclose(a, b)), read, WEIGHTS))
    np.savez(tmp_path / 'other.npz', **arrays)
    with pytest.raises(DataError, match='tap0'):
        read_perceptual_weights(tmp_path / 'other.npz')
