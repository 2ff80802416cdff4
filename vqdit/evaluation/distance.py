"""Distance between a known distribution and samples, and how large it is by chance alone."""

import numpy as np


def total_variation(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Half the sum of |share - probability|; `counts` [K], `probabilities` [K] that sum to 1."""
    return float(0.5 * np.abs(counts / counts.sum() - probabilities).sum())


def expected_total_variation(count: int, probabilities: np.ndarray) -> float:
    """The mean `total_variation` of `count` samples of the very distribution: what a perfect sampler shows.

    Exact, by de Moivre's formula for a binomial variable: E|X - np| = 2 v (1 - p) P(X = v), v = floor(np) + 1
    (Diaconis & Zabell 1991, doi:10.1214/ss/1177011699).
    """
    from scipy.stats import binom  # Takes a second to import.
    above = np.floor(count * probabilities) + 1
    deviations = 2 * above * (1 - probabilities) * binom.pmf(above, count, probabilities)
    return float(0.5 * deviations.sum() / count)
