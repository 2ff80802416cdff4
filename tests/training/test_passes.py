import jax
import jax.numpy as jnp
import numpy as np

from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.frozen import LearnedTokenizer
from vqdit.tokenizers.pixels import Pixels
from vqdit.tokenizers.quantizers import VectorQuantizer
from vqdit.training.passes import in_slices, whole


def test_slices_of_a_batch_learn_as_the_whole_batch():
    """Reference case 22, first half: gradients, averages, counts and usage; revived codes and statistics among them.

    In peers every slice moves the averages for itself.
    """
    tokenizer = LearnedTokenizer(Pixels((4, 4), 1), Autoencoder(
        VectorQuantizer(num_codes=8, dimension=3, decay=0.5, dead_share=1.1), 1, (4,), 1, (2, 2)))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4, 4, 1)), jnp.float32)

    @jax.jit
    def run(key):
        variables = tokenizer.init(key)

        def learned(forward):
            def loss(params):
                (output, bottleneck), rest = forward(tokenizer, params, variables['codebook'], x, key)
                return jnp.mean((output - x) ** 2) + bottleneck, rest
            return jax.value_and_grad(loss, has_aux=True)(variables['params'])

        return learned(whole), learned(in_slices(4))

    at_once, in_turn = run(jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), at_once, in_turn)
    (_, (codebook, metrics)), gradient = in_turn
    assert float(metrics['revived']) > 0 and int(codebook['quantizer']['steps']) == 1
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient['decoder'])[:2])
