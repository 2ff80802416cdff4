"""Captions against references: BLEU-4, ROUGE-L and CIDEr-D, over lower-case words without punctuation.

Every function takes candidates [n] and, for each of them, one or more references.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

ORDERS = (1, 2, 3, 4)
Words = list[str]
References = Sequence[Sequence[str]]


def words(text: str) -> Words:
    """The words of a caption."""
    return re.findall(r"[\w']+", text.lower())


def _ngrams(text: Words, order: int) -> Counter:
    return Counter(tuple(text[start : start + order]) for start in range(len(text) - order + 1))


def bleu(candidates: Sequence[str], references: References) -> float:
    """BLEU-4 of the whole corpus, in [0, 1], without smoothing (Papineni et al. 2002, ACL P02-1040)."""
    matched, proposed = np.zeros(len(ORDERS)), np.zeros(len(ORDERS))
    length = nearest_length = 0
    for candidate, texts in zip(map(words, candidates), references):
        several = [words(text) for text in texts]
        length += len(candidate)
        nearest_length += min((abs(len(text) - len(candidate)), len(text)) for text in several)[1]
        for place, order in enumerate(ORDERS):
            counts = _ngrams(candidate, order)
            most: Counter = Counter()
            for text in several:
                most |= _ngrams(text, order)
            matched[place] += (counts & most).total()
            proposed[place] += counts.total()
    if not matched.all():
        return 0.0
    brevity = min(1.0, math.exp(1 - nearest_length / length))
    return float(brevity * np.exp(np.mean(np.log(matched / proposed))))


def rouge_l(candidates: Sequence[str], references: References, beta: float = 1.2) -> float:
    """ROUGE-L: the F measure of the longest common subsequence, the mean over examples (Lin 2004, ACL W04-1013).

    Precision and recall are each the best over the references, and `beta` weighs recall, as COCO captions do.
    """
    scores = []
    for candidate, texts in zip(map(words, candidates), references):
        several = [words(text) for text in texts]
        common = [_longest_common(candidate, text) for text in several]
        precision = max(common) / max(len(candidate), 1)
        recall = max(shared / max(len(text), 1) for shared, text in zip(common, several))
        both = recall + beta**2 * precision
        scores.append((1 + beta**2) * precision * recall / both if both else 0.0)
    return float(np.mean(scores))


def _longest_common(one: Words, other: Words) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        previous = row
        row = [0]
        for place, rival in enumerate(other):
            row.append(previous[place] + 1 if word == rival else max(row[-1], previous[place + 1]))
    return row[-1]


def cider_d(candidates: Sequence[str], references: References, sigma: float = 6.0) -> float:
    """CIDEr-D, in [0, 10]: n-grams weighted by their rarity among the references.

    Counts are clipped and differences in length punished (Vedantam et al. 2015, arXiv:1411.5726, eq. 4).
    """
    split = [[words(text) for text in texts] for texts in references]
    total = 0.0
    for order in ORDERS:
        documents = Counter(gram for texts in split for gram in set().union(*(_ngrams(t, order) for t in texts)))
        for candidate, texts in zip(map(words, candidates), split):
            mine = _weigh(candidate, order, documents, len(split))
            for text in texts:
                alike = _cosine_clipped(mine, _weigh(text, order, documents, len(split)))
                lengths = math.exp(-((len(candidate) - len(text)) ** 2) / (2 * sigma**2))
                total += alike * lengths / len(texts)
    return 10 * total / (len(ORDERS) * len(split))


def _weigh(text: Words, order: int, documents: Counter, count: int) -> dict[tuple, float]:
    """Term frequency times inverse document frequency."""
    return {
        gram: frequency * math.log(count / max(1, documents[gram]))
        for gram, frequency in _ngrams(text, order).items()
    }


def _cosine_clipped(candidate: dict[tuple, float], reference: dict[tuple, float]) -> float:
    product = sum(min(weight, reference[gram]) * reference[gram]
                  for gram, weight in candidate.items() if gram in reference)  # fmt: skip
    norms = math.hypot(*candidate.values()) * math.hypot(*reference.values())
    return product / norms if norms else 0.0
