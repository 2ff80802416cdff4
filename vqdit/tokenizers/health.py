"""How well a codebook is used, in numbers and in plain words.

    python -m vqdit.tokenizers.health --workdir=runs/quickstart

measures the learned tokenizers of a workdir on its test examples: the codes of every level, scale and digit, and what
the tokenizer leaves of the data. It writes them beside each tokenizer, with a picture, and prints a diagnosis and a
remedy.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from vqdit.command import run
from vqdit.tokenizers.codec import Standardised
from vqdit.tokenizers.frozen import FrozenTokenizer
from vqdit.tokenizers.latent_statistics import latents_of
from vqdit.tokenizers.quantizers import MultiScale, Quantizer

MEASURED = 256
"""Examples behind the figures."""
MOST_COMPARED = 8192
"""Codes that are searched for duplicates; more would take too long."""


def codebook_health(codes: np.ndarray, num_codes: int) -> dict[str, float]:
    """Figures of codes int [...] from many examples.

    `usage` is the share of codes seen, `perplexity` is exp(entropy) of their frequencies, and `entropy_bits` the bits
    a token costs after ideal entropy coding, against `log2_codes` without.
    """
    counts = np.bincount(codes.reshape(-1), minlength=num_codes).astype(np.float64)
    probabilities = counts[counts > 0] / counts.sum()
    entropy = float(-np.sum(probabilities * np.log(probabilities)))
    return {'usage': float(np.mean(counts > 0)), 'perplexity': float(np.exp(entropy)),
            'entropy_bits': entropy / float(np.log(2)), 'log2_codes': float(np.log2(num_codes)),
            'most_frequent_share': float(counts.max() / counts.sum()), 'dead_codes': float(np.sum(counts == 0)),
            'tokens': float(counts.sum())}


def diagnosis(health: Mapping[str, float]) -> str:
    """One sentence: what the figures of `codebook_health` say, and what to do."""
    if health['perplexity'] < 2:
        return 'collapsed: nearly all tokens have one code; lower the learning rate or use finite_scalar'
    # Too few tokens cannot reach every code, however good it is.
    reachable = min(1.0, health.get('tokens', np.inf) / 2 ** health.get('log2_codes', 0.0))
    if health['usage'] < 0.1 * reachable:
        return 'most codes are unused: choose fewer codes, or train longer'
    if health['most_frequent_share'] > 0.95:
        return 'one code covers almost everything: the data has little content at this resolution'
    if health.get('dead_digits', 0.0):
        return 'some digits of the codes never change: choose fewer of them, or raise the weight of the entropy'
    if health.get('duplicate_codes', 0.0) > 0.1 * 2 ** health.get('log2_codes', 0.0):
        return 'many codes are copies of others: choose fewer codes, or start them by k_means'
    if health.get('quantization_snr', np.inf) < 3:
        return 'the codes are far from the latents: choose more codes, more levels, or a smaller dimension'
    return 'healthy'


def duplicate_codes(vectors: np.ndarray, tolerance: float = 1e-3) -> int:
    """How many of the vectors [K, D] lie within `tolerance` of their root mean square of one with a lower index."""
    size = np.sqrt(np.mean(np.sum(vectors.astype(np.float64) ** 2, axis=-1)))
    found = 0
    for index in range(1, len(vectors)):
        distances = np.linalg.norm(vectors[:index] - vectors[index], axis=-1)
        found += bool(distances.min() <= tolerance * max(size, 1e-12))
    return found


def quantization_snr(latents: np.ndarray, vectors: np.ndarray) -> float:
    """Power of the latents over that of the error of quantization, in decibels."""
    error = np.mean((latents.astype(np.float64) - vectors.astype(np.float64)) ** 2)
    power = np.mean((latents.astype(np.float64) - latents.mean()) ** 2)
    return float(10 * np.log10(np.maximum(power, 1e-20) / np.maximum(error, 1e-20)))


def digit_health(codes: np.ndarray, radices: Sequence[int]) -> list[dict[str, float]]:
    """Figures of every digit that codes int [...] are made of, the fastest first: levels of scalars, or single bits."""
    figures, place = [], 1
    for radix in radices:
        figures.append(codebook_health(codes // place % radix, radix))
        place *= radix
    return figures


def changed_share(codes: np.ndarray, earlier: np.ndarray) -> float:
    """Drift: the share of tokens whose code is another one than at an earlier step, on the same data."""
    return float(np.mean(codes != earlier))


def tokenizer_health(tokenizer: FrozenTokenizer, raw: np.ndarray) -> dict[str, Any]:
    """Figures of a learned tokenizer on raw data [B, ...]: of every level or scale, and of the quantization."""
    spec, quantizer = tokenizer.spec, tokenizer.tokenizer.autoencoder.quantizer
    codes = tokenizer.encode(raw).reshape(len(raw), -1, spec.levels)
    health: dict[str, Any] = {'parts': {}}
    compared = spec.levels == 1 and spec.num_codes <= MOST_COMPARED and tokenizer.tokenizer.has_codebook
    for name, part in _parts(codes, quantizer).items():
        figures = codebook_health(part, spec.num_codes)
        if compared:
            figures['duplicate_codes'] = float(duplicate_codes(tokenizer.codebook()[0]))
        digits = digit_health(part, spec.radices)
        figures['dead_digits'] = float(sum(digit['perplexity'] < 1 + 1e-6 for digit in digits))
        health['parts'][name] = figures | {'diagnosis': diagnosis(figures), 'digits': digits}
    latents, vectors = latents_of(tokenizer, raw[:MEASURED])
    if latents.shape == vectors.shape:
        health['quantization_snr'] = quantization_snr(latents, vectors)
    return health


def _parts(codes: np.ndarray, quantizer: Quantizer) -> dict[str, np.ndarray]:
    """Codes [B, tokens, levels] of every level, or of every scale of a `MultiScale`, by what it is called."""
    quantizer = quantizer.quantizer if isinstance(quantizer, Standardised) else quantizer
    if isinstance(quantizer, MultiScale):
        ends = np.cumsum(quantizer.lengths)[:-1]
        return {f'scale {i}': part for i, part in enumerate(np.split(codes, ends, axis=1))}
    return {f'level {i}': codes[..., i] for i in range(codes.shape[-1])}


def describe(name: str, health: Mapping[str, Any]) -> Iterator[str]:
    """Lines for people."""
    for part, figures in health['parts'].items():
        yield (f'{name}, {part}: {figures["usage"]:.0%} of {2 ** figures["log2_codes"]:.0f} codes used, '
               f'perplexity {figures["perplexity"]:.1f}, {figures["entropy_bits"]:.2f} of {figures["log2_codes"]:.2f} '
               f'bits per token, {figures["dead_codes"]:.0f} dead'
               + (f', {figures["duplicate_codes"]:.0f} duplicate' if 'duplicate_codes' in figures else '')
               + (f', {figures["dead_digits"]:.0f} of {len(figures["digits"])} digits never change'
                  if figures['dead_digits'] else '')
               + f': {figures["diagnosis"]}')
    if 'quantization_snr' in health:
        yield f'{name}: the codes keep the latents at {health["quantization_snr"]:.1f} dB'


if __name__ == '__main__':
    # The command looks at a whole workdir, of which the figures here know nothing.
    from vqdit.evaluation.tokenizers import main
    flags.DEFINE_string('workdir', None, 'folder of trained tokenizers', required=True)
    flags.DEFINE_string('features', '', 'file of LPIPS weights whose features the Frechet distance is of')
    run(main)
