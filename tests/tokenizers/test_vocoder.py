import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.errors import UserError
from vqdit.tokenizers.codec import EncoderDecoder
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer
from vqdit.tokenizers.spectrogram import LogMel
from vqdit.tokenizers.vocoder import FourierDecoder, FourierHead, MelEncoder

MEL = LogMel(rate=8000, window_length=64, hop=16, bands=8, samples=256)


def test_a_spectrum_and_its_sound():
    """The transform is undone to the last sample, ends included."""
    sound = np.random.default_rng(0).uniform(-1, 1, (2, 256)).astype(np.float32)
    spectrum, back = jax.jit(lambda x: (MEL.spectrum(x), MEL.sound(MEL.spectrum(x))))(sound)
    assert spectrum.shape == (2, 16, 33)
    np.testing.assert_allclose(back, sound, atol=1e-5)


def test_the_head_speaks_in_magnitudes_and_phases():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 3, 4)).astype(np.float32)
    weights = {name: {'kernel': rng.normal(size=(4, 5)).astype(np.float32), 'bias': np.full(5, bias, np.float32)}
               for name, bias in (('magnitude', 1.0), ('phase', 2.0))}
    spectrum = FourierHead(5).apply({'params': weights}, x)
    logarithms, phases = (x.astype(np.float64) @ part['kernel'] + part['bias'] for part in weights.values())
    np.testing.assert_allclose(spectrum, np.exp(np.minimum(logarithms, 2.0) + 1j * phases), rtol=1e-4, atol=1e-5)
    assert logarithms.max() > 2


def test_the_codec():
    """Its sound changes with every part of its input, and each of its parameters learns."""
    shape = MEL, 2, 8, 1
    model = EncoderDecoder(FiniteScalarQuantizer((5, 5)), MelEncoder(*shape, 2), FourierDecoder(*shape))
    x = np.random.default_rng(0).uniform(-1, 1, (2, 256, 1)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)

    def loss(params):
        out, quantized = model.apply({'params': params}, x)
        return jnp.mean((out - x) ** 2), (out, quantized.codes)

    gradient, (out, codes) = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
    assert out.shape == x.shape and codes.shape == (2, *model.grid((256,)), 1) == (2, 8, 1)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))
    assert float(jnp.abs(out).max()) < 1, 'it starts quiet'


def test_a_token_of_part_of_a_frame_is_refused():
    with pytest.raises(UserError, match=r'16 frames.*stride=3'):
        MelEncoder(MEL, 3, 8, 1, 2)
