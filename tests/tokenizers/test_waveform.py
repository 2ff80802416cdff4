import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.tokenizers.codec import EncoderDecoder
from vqdit.tokenizers.padding import Causal, Centred
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer
from vqdit.tokenizers.waveform import (
    Snake,
    TransposedConvolution,
    Trunk,
    Waveform,
    WaveformDecoder,
    WaveformEncoder,
)


def test_snake_in_float64():
    x, alpha = np.random.default_rng(0).normal(size=(2, 5, 3)), np.asarray([0.5, 1.0, 3.0])
    out = Snake().apply({'params': {'alpha': alpha.astype(np.float32)}}, x.astype(np.float32))
    np.testing.assert_allclose(out, x + np.sin(alpha * x) ** 2 / alpha, atol=1e-6)


@pytest.mark.parametrize(('padding', 'first'), [(Centred(), 2), (Causal(), 0)])
def test_a_transposed_convolution_spreads_every_step(padding, first):
    """Step t reaches the 2 s samples from s t - first on, and nothing else."""
    layer, x = TransposedConvolution(1, 3, padding), np.zeros((1, 5, 1), np.float32)
    x[0, 2] = 1.0
    params = layer.init(jax.random.key(0), x)
    kernel = params['params']['conv']['kernel'][::-1, 0, 0]
    expected = np.zeros(15)
    expected[6 - first:12 - first] = kernel
    np.testing.assert_allclose(layer.apply(params, x)[0, :, 0], expected, atol=1e-6)


def test_sound_of_any_length_comes_back_in_it():
    """tokenizers.md, case 37: odd strides lose no sample."""
    trunk = Trunk((2, 5), dilations=(1,))
    model = EncoderDecoder(FiniteScalarQuantizer((5, 5)), WaveformEncoder(trunk, 2, 2), WaveformDecoder(trunk, 8))
    for samples, tokens in ((60, 6), (61, 7), (1001, 101), (32_000, 3200)):
        x = jax.ShapeDtypeStruct((1, samples, 1), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
        out, quantized = jax.eval_shape(model.apply, variables, x)
        assert out.shape == x.shape and quantized.codes.shape == (1, tokens, 1) and model.grid((samples,)) == (tokens,)


def test_the_front_end():
    sound = np.asarray([[0.5, -2.0]], np.float32)
    front_end = Waveform(2, 8000)
    assert front_end.size == (2,) and front_end.channels == 1
    np.testing.assert_array_equal(front_end.synthesise(front_end.analyse(sound)), [[0.5, -1.0]])
