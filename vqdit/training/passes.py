"""Passes through an autoencoder in training: what of it learns.

A pass is a pure function `(tokenizer, params, codebook, x, key) -> ((output, loss), (codebook, metrics))` of data
[B, *size, C]: what is left of the data, the quantizer's own loss, and the codebook after it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vqdit.tokenizers.frozen import LearnedTokenizer
from vqdit.training.gradients import joined, sliced
from vqdit.training.state import Tree
from vqdit.training.steps import Metrics

DECODER = 'decoder'
"""The module of an autoencoder that makes data of code vectors."""
Pass = Callable[[LearnedTokenizer, Tree, Tree, jax.Array, jax.Array],
                tuple[tuple[jax.Array, jax.Array], tuple[Tree, Metrics]]]


def whole(tokenizer: LearnedTokenizer, params: Tree, codebook: Tree, x: jax.Array,
          key: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[Tree, Metrics]]:
    """Encoder, codebook and decoder learn."""
    result, changed = tokenizer.autoencoder.apply(
        _variables(params, codebook), x, train=True, key=key, mutable=['codebook'])
    return (result.output, result.quantized.loss), (changed.get('codebook', {}), result.quantized.metrics)


def in_slices(parts: int) -> Pass:
    """All learn as in `whole`, and the same: encoder and decoder take `parts` slices of the batch one after the other
    and remember nothing but their ends, while the codebook sees the whole batch at once."""
    def forward(tokenizer: LearnedTokenizer, params: Tree, codebook: Tree, x: jax.Array,
                key: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[Tree, Metrics]]:
        codec, variables = tokenizer.autoencoder, _variables(params, codebook)
        piecewise = lambda method, data, *rest: joined(jax.lax.map(
            jax.checkpoint(lambda part: codec.apply(variables, part, *rest, method=method)), sliced(data, parts)))
        quantized, changed = codec.apply(variables, piecewise('latents', x), train=True, key=key, method='quantize',
                                         mutable=['codebook'])
        output = piecewise('reconstruct', quantized.vectors, x.shape[1:-1])
        return (output, quantized.loss), (changed.get('codebook', {}), quantized.metrics)

    return forward


def decoder_alone(tokenizer: LearnedTokenizer, params: Tree, codebook: Tree, x: jax.Array,
                  key: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[Tree, Metrics]]:
    """The codes stay what they are: nothing but the decoder has a gradient, and the codebook is as after training."""
    still = {name: part if name == DECODER else jax.lax.stop_gradient(part) for name, part in params.items()}
    result: Any = tokenizer.autoencoder.apply(_variables(still, codebook), x)
    return (result.output, jnp.zeros(())), (codebook, result.quantized.metrics)


def of_decoder(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """`optimizer` for the decoder, nothing for the rest, which weight decay would change without a gradient."""
    return optax.partition({True: optimizer, False: optax.set_to_zero()},
                           lambda params: {name: name == DECODER for name in params})


def _variables(params: Tree, codebook: Tree) -> Tree:
    return {'params': params} | ({'codebook': codebook} if codebook else {})
