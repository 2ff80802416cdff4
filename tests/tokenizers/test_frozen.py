import jax
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.code_vectors import vector_channels
from vqdit.tokenizers.frozen import FrozenTokenizer, LearnedTokenizer, check_geometry
from vqdit.tokenizers.losses import peak_signal_to_noise, reconstruction_loss
from vqdit.tokenizers.pixels import Pixels
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer, MultiScale, Residual
from vqdit.tokenizers.quantizers.bounds import ClippedBound


@pytest.fixture(scope='module')
def frozen():
    tokenizer = LearnedTokenizer(Pixels((8, 8), 3), Autoencoder(FiniteScalarQuantizer((5, 5)), 3, (8,), 1, (2, 2)))
    return FrozenTokenizer(tokenizer, jax.device_get(tokenizer.init(jax.random.key(0))), batch_size=4)


def _pictures(count):
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)


def test_pixels_come_back():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    front_end = Pixels((16, 16), 1)
    x = front_end.analyse(pixels)
    assert float(x.min()) == -1 and float(x.max()) == 1
    np.testing.assert_array_equal(front_end.synthesise(x), pixels)
    np.testing.assert_array_equal(front_end.synthesise(x * 9)[0, 0, 0], [0])


def test_codes_do_not_depend_on_how_the_data_is_cut(frozen):
    pictures = _pictures(7)
    codes = frozen.encode(pictures)
    assert codes.shape == (7, frozen.spec.length) and frozen.spec.grid == (4, 4)
    np.testing.assert_array_equal(codes, np.concatenate([frozen.encode(pictures[i:i + 1]) for i in range(7)]))
    decoded = frozen.decode(codes)
    assert decoded.dtype == np.uint8 and decoded.shape == pictures.shape


def test_fingerprint_names_the_parameters(frozen):
    again = FrozenTokenizer(frozen.tokenizer, frozen.variables)
    assert again.fingerprint == frozen.fingerprint
    leaf, structure = jax.tree.flatten(frozen.variables)
    changed = jax.tree.unflatten(structure, [leaf[0] + 1e-7 * (1 + abs(leaf[0])), *leaf[1:]])
    assert FrozenTokenizer(frozen.tokenizer, changed).fingerprint != frozen.fingerprint


def test_losses_are_what_they_say():
    output, target = np.array([[0.0, 1.0]], np.float32), np.array([[0.5, 0.0]], np.float32)
    assert float(reconstruction_loss(output, target, 2.0, 0.0)) == pytest.approx(2 * 0.75)
    assert float(reconstruction_loss(output, target, 0.0, 3.0)) == pytest.approx(3 * 0.625)
    assert float(peak_signal_to_noise(output, target)) == pytest.approx(10 * np.log10(4 / 0.625), rel=1e-5)
    pixels = np.zeros(4, np.uint8), np.full(4, 10, np.uint8)
    assert float(peak_signal_to_noise(*pixels, 255.0)) == pytest.approx(28.1308, abs=1e-3)


def test_every_code_is_listed_with_what_it_adds(frozen):
    one = FiniteScalarQuantizer((5, 5), ClippedBound())
    for quantizer in (frozen.tokenizer.autoencoder.quantizer, Residual((one, one.clone()))):
        tokenizer = LearnedTokenizer(Pixels((8, 8), 3), Autoencoder(quantizer, 3, (8,), 1, (2, 2)))
        every, levels = np.asarray(tokenizer.codebook(frozen.variables)), quantizer.levels
        assert every.shape == (levels, 25, 2)
        codes = np.random.default_rng(0).integers(0, 25, (6, levels))
        added = sum(every[level, codes[:, level]] - (every[level, 0] if level else 0) for level in range(levels))
        np.testing.assert_allclose(added, quantizer.apply({}, codes, method='lookup'), atol=1e-6)


def test_codes_of_scales_have_no_vectors_of_their_own():
    """Not even where there is one scale: its codes lie in a row."""
    scales = MultiScale(FiniteScalarQuantizer((5, 5)), ((2, 2),))
    tokenizer = LearnedTokenizer(Pixels((4, 4), 3), Autoencoder(scales, 3, (8,), 1, (2, 2)))
    for refused in (lambda: tokenizer.codebook({}), lambda: vector_channels(tokenizer),
                    lambda: check_geometry(tokenizer, 'image')):
        with pytest.raises(UserError, match=r'grid of \(4,\).*multi_scale'):
            refused()
