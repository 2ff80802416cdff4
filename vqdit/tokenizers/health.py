"""How well a codebook is used, in numbers and in plain words.

    python -m vqdit.tokenizers.health --workdir=runs/quickstart

measures the learned tokenizers of a trained workdir on its test examples, and prints a diagnosis with a remedy.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from absl import flags

from vqdit.command import run
from vqdit.files import write_json
from vqdit.tokenizers.frozen import FrozenTokenizer

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


def signal_to_noise(output: np.ndarray, target: np.ndarray, peak: float) -> float:
    """PSNR in decibels over whole arrays; `peak` is the range of the data, 255 for uint8 pictures."""
    error = np.mean((output.astype(np.float64) - target.astype(np.float64)) ** 2)
    return float(10 * np.log10(peak**2 / np.maximum(error, 1e-20)))


def quantization_snr(latents: np.ndarray, vectors: np.ndarray) -> float:
    """Power of the latents over that of the error of quantization, in decibels."""
    error = np.mean((latents.astype(np.float64) - vectors.astype(np.float64)) ** 2)
    power = np.mean((latents.astype(np.float64) - latents.mean()) ** 2)
    return float(10 * np.log10(np.maximum(power, 1e-20) / np.maximum(error, 1e-20)))


def tokenizer_health(tokenizer: FrozenTokenizer, raw: np.ndarray) -> dict[str, Any]:
    """Figures of a learned tokenizer on raw data [B, ...]: of every level, and of the error of quantization."""
    spec, quantizer = tokenizer.spec, tokenizer.tokenizer.autoencoder.quantizer
    codes = tokenizer.encode(raw).reshape(-1, spec.levels)
    health: dict[str, Any] = {'levels': []}
    for level in range(spec.levels):
        figures = codebook_health(codes[:, level], spec.num_codes)
        if spec.levels == 1 and spec.num_codes <= MOST_COMPARED:
            every = np.arange(spec.num_codes, dtype=np.int32)[:, None]
            vectors = tokenizer.tokenizer.autoencoder.apply(
                tokenizer.variables, every, method=lambda module, codes: module.quantizer.lookup(codes))
            figures['duplicate_codes'] = float(duplicate_codes(np.asarray(vectors)))
        health['levels'].append(figures | {'diagnosis': diagnosis(figures)})
    latents, vectors = _latents(tokenizer, type(quantizer), raw[:MEASURED])
    if latents.shape == vectors.shape:
        health['quantization_snr'] = quantization_snr(latents, vectors)
    return health


def describe(name: str, health: Mapping[str, Any]) -> Iterator[str]:
    """Lines for people."""
    for level, figures in enumerate(health['levels']):
        yield (f'{name}, level {level}: {figures["usage"]:.0%} of {2 ** figures["log2_codes"]:.0f} codes used, '
               f'perplexity {figures["perplexity"]:.1f}, {figures["entropy_bits"]:.2f} of {figures["log2_codes"]:.2f} '
               f'bits per token, {figures["dead_codes"]:.0f} dead'
               + (f', {figures["duplicate_codes"]:.0f} duplicate' if 'duplicate_codes' in figures else '')
               + f': {figures["diagnosis"]}')
    if 'quantization_snr' in health:
        yield f'{name}: the codes keep the latents at {health["quantization_snr"]:.1f} dB'


def _latents(tokenizer: FrozenTokenizer, kind: type, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the quantizer is given and what it makes of it, fp32 [B, *grid, D]."""
    seen: list[Any] = []

    def watch(call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        out = call(*args, **kwargs)
        if isinstance(context.module, kind) and context.method_name == '__call__' and len(context.module.path) == 1:
            seen.append((args[0], out.vectors))
        return out

    @jax.jit
    def quantize(variables: Any, raw: jax.Array) -> tuple[jax.Array, jax.Array]:
        with nn.intercept_methods(watch):
            tokenizer.tokenizer.encode(variables, raw)
        return seen[-1]

    latents, vectors = quantize(tokenizer.variables, raw)
    return np.asarray(latents), np.asarray(vectors)


def main() -> None:
    # Only this command looks at a whole workdir; what it measures with knows of no training.
    from vqdit.data import load
    from vqdit.training.host import prepare_host
    from vqdit.training.pipeline import load_generator
    prepare_host(cpu_devices=1)
    workdir = Path(flags.FLAGS.workdir)
    generator, config = load_generator(workdir)
    for name, tokenizer in generator.tokenizers.items():
        if isinstance(tokenizer, FrozenTokenizer):
            test = load(config.data, 'test', modalities=(name,))
            raw = np.stack([test[i][name] for i in range(min(MEASURED, len(test)))])
            health = tokenizer_health(tokenizer, raw)
            write_json(workdir / 'tokenizers' / name / 'codebook.json', health)
            sys.stdout.write('\n'.join(describe(name, health)) + '\n')


if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'folder of the trained model', required=True)
    run(main)
