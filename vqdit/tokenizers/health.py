"""How well a codebook is used, in numbers and in plain words."""

import numpy as np


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
            'most_frequent_share': float(counts.max() / counts.sum())}


def diagnosis(health: dict[str, float]) -> str:
    """One sentence: what the figures of `codebook_health` say, and what to do."""
    if health['perplexity'] < 2:
        return 'collapsed: nearly all tokens have one code; lower the learning rate or use finite_scalar'
    if health['usage'] < 0.1:
        return 'most codes are unused: choose fewer codes, or train longer'
    if health['most_frequent_share'] > 0.95:
        return 'one code covers almost everything: the data has little content at this resolution'
    return 'healthy'


def signal_to_noise(output: np.ndarray, target: np.ndarray, peak: float) -> float:
    """PSNR in decibels over whole arrays; `peak` is the range of the data, 255 for uint8 pictures."""
    error = np.mean((output.astype(np.float64) - target.astype(np.float64)) ** 2)
    return float(10 * np.log10(peak**2 / np.maximum(error, 1e-20)))
