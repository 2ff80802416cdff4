"""Distance between a known distribution and samples, and how large it is by chance alone."""

import math

import numpy as np


def total_variation(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Half the sum of |share - probability|; `counts` [K], `probabilities` [K] that sum to 1."""
    return float(0.5 * np.abs(counts / counts.sum() - probabilities).sum())


def expected_total_variation(count: int, probabilities: np.ndarray) -> float:
    """The mean `total_variation` of `count` samples of the very distribution: what a perfect sampler shows.

    Exact, by de Moivre's formula for a binomial variable: E|X - np| = 2 v (1 - p) P(X = v), v = floor(np) + 1
    (Diaconis & Zabell 1991, doi:10.1214/ss/1177011699).
    """
    return sum(_expected_deviation(count, float(probability)) for probability in probabilities) / (2 * count)


def _expected_deviation(count: int, probability: float) -> float:
    if not 0 < probability < 1:
        return 0.0
    above = math.floor(count * probability) + 1
    # scipy.stats has this density too, and takes a second or more to import.
    ways = math.lgamma(count + 1) - math.lgamma(above + 1) - math.lgamma(count - above + 1)
    density = math.exp(ways + above * math.log(probability) + (count - above) * math.log1p(-probability))
    return 2 * above * (1 - probability) * density
