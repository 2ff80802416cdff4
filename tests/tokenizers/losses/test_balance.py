import numpy as np
import pytest

from vqdit.tokenizers.losses.balance import AdaptiveWeight, FixedWeights, GradientBalancer

RNG = np.random.default_rng(0)
NAMES = ('reconstruction', 'adversarial', 'feature_matching')
SLOPES = {name: (RNG.normal(size=(4, 6, 2)) * size).astype(np.float32) for name, size in zip(NAMES, (1, 50, 0.01))}
WEIGHTS = {name: np.float32(weight) for name, weight in zip(NAMES, (1.0, 0.5, 2.0))}


def _length(slope):
    """Mean length of the items' gradients in float64."""
    return np.mean(np.linalg.norm(slope.reshape(4, -1).astype(np.float64), axis=1))


def test_fixed_weights_stay():
    assert FixedWeights()(SLOPES, WEIGHTS, {}) == (WEIGHTS, {})


def test_adaptive_weights_make_every_pull_as_long_as_the_reconstructions():
    """Reference case 32, arXiv:2012.09841, eq. 7."""
    factors, _ = AdaptiveWeight()(SLOPES, WEIGHTS, {})
    for name in NAMES:
        length = np.linalg.norm(float(factors[name]) * SLOPES[name])
        assert length == pytest.approx(WEIGHTS[name] * np.linalg.norm(SLOPES['reconstruction']), rel=1e-2)
    none, _ = AdaptiveWeight()(SLOPES | {'adversarial': 0 * SLOPES['adversarial']}, WEIGHTS, {})
    assert np.isfinite(none['adversarial']) and float(none['adversarial']) <= 0.5 * 1e4


def test_the_balancer_gives_every_loss_its_share_of_a_gradient_of_one_length():
    """arXiv:2210.13438, eq. 4, over three steps in float64: shares of the weights over averaged lengths."""
    balancer = GradientBalancer(decay=0.9, length=3.0)
    state, averages, weight = balancer.start(NAMES), dict.fromkeys(NAMES, 0.0), 0.0
    for step in range(3):
        slopes = {name: slope * np.float32(1 + step) for name, slope in SLOPES.items()}
        factors, state = balancer(slopes, WEIGHTS, state)
        averages = {name: 0.9 * averages[name] + _length(slopes[name]) for name in NAMES}
        weight = 0.9 * weight + 1
        for name in NAMES:
            expected = 3.0 * WEIGHTS[name] / 3.5 / (averages[name] / weight)
            assert float(factors[name]) == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_does_not_count_yet_takes_no_share():
    factors, _ = GradientBalancer()(SLOPES, WEIGHTS | {'adversarial': np.float32(0)}, GradientBalancer().start(NAMES))
    assert float(factors['adversarial']) == 0
    shares = [float(factors[name]) * _length(SLOPES[name]) for name in NAMES]
    assert sum(shares) == pytest.approx(1, rel=1e-5)
