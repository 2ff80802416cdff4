"""Estimates of the entropy of codes beside what it is."""

from types import SimpleNamespace

import numpy as np
import pytest

from vqdit.evaluation.code_entropy import code_entropy_rows, entropy_apart, joint_entropy
from vqdit.tokenizers.spec import TokenSpec

P = np.array([0.5, 0.25, 0.125, 0.125])
TRUTH = float(-np.sum(P * np.log(P)))


def _draws(rng, count, tokens):
    return rng.choice(4, p=P, size=(count, tokens))


def test_independent_tokens():
    codes = _draws(np.random.default_rng(0), 4000, 2)
    assert entropy_apart(codes) == pytest.approx(2 * TRUTH, abs=0.03)
    assert joint_entropy(codes) == pytest.approx(2 * TRUTH, abs=0.03)


def test_tokens_that_tell_of_each_other_are_overrated_apart_and_many_underrated_together():
    same = np.repeat(_draws(np.random.default_rng(1), 4000, 1), 3, axis=1)
    assert joint_entropy(same) == pytest.approx(TRUTH, abs=0.03)
    assert entropy_apart(same) == pytest.approx(3 * TRUTH, abs=0.06)
    many = _draws(np.random.default_rng(2), 64, 16)
    assert joint_entropy(many) <= np.log(64) < 16 * TRUTH / 3


def test_the_correction_takes_out_the_bias_of_few_draws():
    rng = np.random.default_rng(3)
    found = np.array([(entropy_apart(codes), joint_entropy(codes))
                      for codes in (_draws(rng, 30, 1) for _ in range(2000))]).mean(axis=0)
    assert abs(found[0] - TRUTH) < 0.01 < 0.03 < TRUTH - found[1]


def test_rows_are_bits_per_token():
    tokenizer = SimpleNamespace(spec=TokenSpec((2,), 4), encode=lambda items: items)
    render = lambda scene, rng: _draws(rng, 1, 2)[0]
    joint, apart = code_entropy_rows('text->image', tokenizer, render, [None] * 4, 1000)
    assert joint.value == pytest.approx(1.75, abs=0.03) and apart.value == pytest.approx(1.75, abs=0.03)
    assert joint.count == 4000 and joint.unit == 'bits per token'
