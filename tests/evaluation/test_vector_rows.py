"""Likelihood rows of a Gaussian process over code vectors: those of a network that knows nothing are known."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.diffusion.clock import Task
from vqdit.diffusion.gaussian import PREDICTIONS, Gaussian
from vqdit.diffusion.gaussian.code_space import CodeSpace
from vqdit.diffusion.gaussian.code_vectors import CodeVectors
from vqdit.evaluation.likelihood import NOISED, VectorLikelihood
from vqdit.tokenizers.code_vectors import code_vectors
from vqdit.tokenizers.spec import TokenLayout
from vqdit.tokenizers.text import WordTokenizer

WORDS = {'question': WordTokenizer(('red', 'green', 'blue'), 3), 'answer': WordTokenizer(('yes', 'no'), 2)}
LAYOUT = TokenLayout({name: tokenizer.spec for name, tokenizer in WORDS.items()})


def test_a_network_that_knows_nothing_spends_what_a_normal_law_does():
    """All four codes of an answer, two bits of +-1 each, are as likely: the clean mean is 0, the flow a normal law."""
    shapes = {name: (spec.length, spec.num_codes) for name, spec in LAYOUT.specs.items()}
    answer = lambda variables, z, clock: {name: jnp.zeros((len(z), *shape)) for name, shape in shapes.items()}
    generator = SimpleNamespace(
        layout=LAYOUT, tokenizers=WORDS, batch_size=40, model=SimpleNamespace(apply=answer),
        run=lambda function, rows, *rest: function({}, *rows, *rest))
    vectors = CodeVectors(LAYOUT, {name: code_vectors(tokenizer) for name, tokenizer in WORDS.items()})
    likelihood = VectorLikelihood(generator, CodeSpace(Gaussian(prediction=PREDICTIONS['clean']), vectors))
    examples = [{'question': 'red blue', 'answer': ('yes', 'no', 'yes no')[i % 3]} for i in range(100)]
    nats, bits, flow = likelihood.rows(Task.parse('question->answer'), examples, seed=0, entropy=None)
    assert (nats.unit, bits.unit, flow.unit) == ('nats per token', 'bits per token', 'bits per dimension')
    assert (nats.count, flow.count) == (100, 32) and nats.margin > 0
    assert bits.value == pytest.approx(nats.value / np.log(2), rel=1e-5)

    sigma = 1 / (1 + np.exp(NOISED / 2))
    alpha = 1 - sigma
    expected = (0.5 * (alpha**2 / sigma**2 + 1) + np.log(sigma) + 0.5 * np.log(2 * np.pi)) / np.log(2)
    # The square of x + noise, 32 times two tokens of two bits.
    assert abs(flow.value - expected) < 2 * flow.margin + 0.01 * expected and flow.margin < 0.05 * expected
