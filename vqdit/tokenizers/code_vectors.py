"""The vectors that stand for the codes of a tokenizer, where a process needs vectors: fp32 [levels, K, C]."""

import math

import jax
import numpy as np

from vqdit.tokenizers.frozen import FrozenTokenizer, LearnedTokenizer, Tokenizer
from vqdit.tokenizers.spec import TokenSpec


def code_vectors(tokenizer: Tokenizer) -> np.ndarray:
    """Those of its codebook, with mean 0 and variance 1 in every channel over the codes of a level; for a tokenizer
    without one, such as of text, the bits of the code as -1 and 1 (analog bits, arXiv:2208.04202).

    Raises UserError for a learned tokenizer without a codebook.
    """
    if isinstance(tokenizer, FrozenTokenizer):
        return standardised(tokenizer.codebook())
    codes, bits = np.arange(tokenizer.spec.num_codes), np.arange(vector_channels(tokenizer.spec))
    return (2.0 * (codes[None, :, None] >> bits[None, None] & 1) - 1.0).astype(np.float32)


def vector_channels(tokenizer: LearnedTokenizer | TokenSpec) -> int:
    """C of `code_vectors`, with the same errors: of a learned tokenizer, trained or not, or of codes without one."""
    if isinstance(tokenizer, TokenSpec):
        return max(1, math.ceil(math.log2(tokenizer.num_codes)))
    return jax.eval_shape(lambda key: tokenizer.codebook(tokenizer.init(key)), jax.random.key(0)).shape[-1]


def standardised(table: np.ndarray) -> np.ndarray:
    """`table [levels, K, C]` with mean 0 and variance 1 over the codes; a channel that never changes becomes 0."""
    centred = table - table.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    return np.where(deviation > 1e-6, centred / np.maximum(deviation, 1e-6), 0.0).astype(np.float32)
