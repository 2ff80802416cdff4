import jax
import jax.numpy as jnp
import numpy as np

from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.frozen import FrozenTokenizer, LearnedTokenizer
from vqdit.tokenizers.latent_statistics import Statistics, latents_of, read_statistics, write_statistics
from vqdit.tokenizers.pixels import Pixels
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer

RNG = np.random.default_rng(0)


def test_normalised_vectors_have_unit_scale_and_come_back():
    vectors = RNG.normal(size=(40, 5, 3)) * [1, 20, 0] + [0, -5, 7]
    statistics = Statistics.of(vectors)
    normal = np.asarray(statistics.normalise(jnp.asarray(vectors, jnp.float32)))
    np.testing.assert_allclose(normal.mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(normal.std(axis=(0, 1)), [1, 1, 0], atol=1e-5)
    np.testing.assert_allclose(statistics.restore(normal), vectors, rtol=1e-5, atol=1e-5)


def test_statistics_are_those_of_what_the_quantizer_sees_and_stay_in_the_folder(tmp_path):
    tokenizer = LearnedTokenizer(Pixels((8, 8), 1), Autoencoder(FiniteScalarQuantizer((5, 3)), 1, (8,), 1, (4, 4)))
    frozen = FrozenTokenizer(tokenizer, jax.jit(tokenizer.init)(jax.random.key(0)), batch_size=4)
    raw = RNG.integers(0, 256, (8, 8, 8, 1)).astype(np.uint8)
    latents, vectors = latents_of(frozen, raw)
    again = tokenizer.autoencoder.quantizer.apply({}, latents)
    np.testing.assert_array_equal(again.vectors, vectors)
    np.testing.assert_array_equal(again.codes.reshape(8, -1), frozen.encode(raw))
    write_statistics(tmp_path, frozen, raw)
    found = read_statistics(tmp_path)
    # A fresh tokenizer standardises by nothing but the variance of 1 and a millionth.
    np.testing.assert_allclose(found['latents'].mean, latents.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found['code_vectors'].std, vectors.std(axis=(0, 1, 2)), rtol=1e-5)
