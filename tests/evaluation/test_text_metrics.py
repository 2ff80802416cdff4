"""BLEU-4, ROUGE-L and CIDEr-D against values worked out by hand."""

import math

import pytest

from vqdit.evaluation.text import bleu, cider_d, rouge_l, words

CAPTIONS = ['a small red circle at the top left', 'a large blue square at the centre', 'a tiny cross']


def single(texts):
    return [[text] for text in texts]


def test_words_are_lower_case_and_without_punctuation():
    assert words("A flag: the people's, in RED!") == ['a', 'flag', 'the', "people's", 'in', 'red']


def test_the_reference_itself_has_the_highest_scores():
    assert bleu(CAPTIONS, single(CAPTIONS)) == pytest.approx(1)
    assert rouge_l(CAPTIONS, single(CAPTIONS)) == pytest.approx(1)
    # Three captions have n-grams of orders 1 to 3, two of them of order 4.
    assert cider_d(CAPTIONS, single(CAPTIONS)) == pytest.approx(10 * (3 + 3 + 3 + 2) / 12)


def test_other_words_score_nothing():
    others = ['one two three four five', 'six seven eight nine', 'ten eleven twelve']
    assert bleu(others, single(CAPTIONS)) == rouge_l(others, single(CAPTIONS)) == cider_d(others, single(CAPTIONS)) == 0


def test_bleu_by_hand():
    """the cat sat on mat | the cat sat on the mat: 5/5, 3/4, 2/3, 1/2; brevity exp(1 - 6/5)."""
    value = bleu(['the cat sat on mat'], [['the cat sat on the mat']])
    assert value == pytest.approx(math.exp(-0.2) * (1 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_bleu_clips_repeated_words_at_the_reference():
    """the x 7 has 2 of 7 unigrams in the classic example; no bigram matches, so the corpus needs another line."""
    value = bleu(['the the the the the the the', 'a b c d'], [['the cat is on the mat'], ['a b c d']])
    precisions = [(2 + 4) / 11, (0 + 3) / 9, (0 + 2) / 7, (0 + 1) / 5]
    assert value == pytest.approx(math.prod(precisions) ** 0.25)  # 11 words against 10: no penalty


def test_bleu_takes_the_nearest_of_several_references():
    value = bleu(['a b c d e'], [['a b c d', 'a b c d e f g h']])
    assert value == pytest.approx(1)  # every n-gram is in the second, the length of the first is nearer


def test_rouge_by_hand():
    """police kill the gunman | police killed the gunman: 3 of 4 common, so F = 3/4 for any weight."""
    assert rouge_l(['police kill the gunman'], [['police killed the gunman']]) == pytest.approx(0.75)
    # Common: "a c" of 2 words proposed and 4 wanted; F = (1 + 1.44) 1 0.5 / (0.5 + 1.44).
    assert rouge_l(['a c'], [['a b c d']]) == pytest.approx(2.44 * 0.5 / 1.94)


def test_order_matters_to_rouge():
    assert rouge_l(['gunman the kill police'], [['police kill the gunman']]) == pytest.approx(0.25)


def test_cider_by_hand():
    """Two images; "a" is in both references and weighs nothing.

    Unigrams of the first: b and c weigh ln 2 each, the candidate has b only: cosine 1 / sqrt(2), one word fewer.
    Its bigram "a b" is one of two: 1 / sqrt(2) again. The second candidate is its reference: 1, 1, 0, 0.
    """
    value = cider_d(['a b', 'a d'], [['a b c'], ['a d']])
    shorter = math.exp(-1 / 72)
    assert value == pytest.approx(10 * (2 * shorter / math.sqrt(2) + 2) / 8)


def test_cider_clips_repetition():
    """b b against b: min(2, 1) * 1 / (2 * 1) in unigrams, one word longer; other orders have nothing in common."""
    value = cider_d(['b b', 'd'], [['b'], ['d']])
    assert value == pytest.approx(10 * (0.5 * math.exp(-1 / 72) + 1) / 8)


def test_references_are_averaged_in_cider():
    value = cider_d(['b', 'd'], [['b', 'c'], ['d']])
    assert value == pytest.approx(10 * (0.5 + 1) / 8)


def test_empty_candidates_score_nothing():
    assert bleu(['', ''], [['a'], ['b']]) == rouge_l(['', ''], [['a'], ['b']]) == cider_d(['', ''], [['a'], ['b']]) == 0
