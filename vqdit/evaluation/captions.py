"""Scores of captioned data without a judge: captions by their n-grams, pictures by their distance to the real ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vqdit.data import Example
from vqdit.diffusion.clock import Task
from vqdit.evaluation.image import psnr, ssim
from vqdit.evaluation.rows import Row
from vqdit.evaluation.text import bleu, cider_d, rouge_l
from vqdit.tokenizers.frozen import Tokenizer

NEAREST = 5


class CaptionsScorer:
    """Compares what was generated with the example's own caption or picture."""

    def __init__(self, config: ConfigDict):
        del config

    def score(
        self, task: Task, examples: Sequence[Example], generated: Mapping[str, Sequence[Any]]
    ) -> list[Row]:
        """BLEU-4, ROUGE-L and CIDEr-D of captions; retrieval of the real picture by the generated one."""
        rows: list[Row] = []
        if not task.given:
            return rows
        if 'text' in task.generated:
            rows += caption_rows(str(task), generated['text'], [[example['text']] for example in examples])
        if 'image' in task.generated:
            rows += retrieval_rows(str(task), np.stack(generated['image']), _column(examples, 'image'))
        return rows

    def score_reconstruction(self, modality: str, examples: Sequence[Example], decoded: Sequence[Any]) -> list[Row]:
        """PSNR and SSIM of pictures after encoding and decoding."""
        if modality != 'image':
            return []
        return picture_rows(f'reconstruct {modality}', np.stack(decoded), _column(examples, modality))

    def entropy(self, task: Task) -> float | None:
        """Not known for real captions."""
        return None

    def code_rows(self, task: Task, tokenizers: Mapping[str, Tokenizer]) -> list[Row]:
        """Not known for real data."""
        return []


def _column(examples: Sequence[Example], modality: str) -> np.ndarray:
    return np.stack([example[modality] for example in examples])


def caption_rows(task: str, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[Row]:
    """The three scores, each with that of the references themselves as the ceiling, and exact matches."""
    count, same = len(candidates), [texts[0] for texts in references]
    exact = np.mean([text in texts for text, texts in zip(candidates, references)])
    return [
        Row(task, 'BLEU-4', bleu(candidates, references), 'fraction', count, bleu(same, references)),
        Row(task, 'ROUGE-L', rouge_l(candidates, references), 'fraction', count, rouge_l(same, references)),
        Row(task, 'CIDEr-D', cider_d(candidates, references), 'score of 10', count, cider_d(same, references)),
        Row(task, 'exact caption', float(exact), 'fraction', count, 1.0),
    ]


def picture_rows(task: str, pictures: np.ndarray, originals: np.ndarray) -> list[Row]:
    """PSNR and SSIM, uint8 [n, H, W, C] each."""
    return [
        Row(task, 'PSNR', float(psnr(pictures, originals).mean()), 'dB', len(pictures)),
        Row(task, 'SSIM', float(ssim(pictures, originals).mean()), 'fraction', len(pictures), 1.0),
    ]


def retrieval_rows(task: str, pictures: np.ndarray, originals: np.ndarray) -> list[Row]:
    """How often the real picture is among the real ones nearest to the generated one, in mean squared error.

    By chance it would be among the first k of n in k / n of the cases.
    """
    made, real = (_flat(part) for part in (pictures, originals))
    # |a - b|^2 without its |a|^2, which is the same for all candidates.
    distance = np.sum(real**2, axis=1) - 2 * made @ real.T
    own = np.diagonal(distance)[:, None]
    rank = np.sum(distance < own, axis=1)
    return [
        Row(task, f'own picture among nearest {k}', float(np.mean(rank < k)), 'fraction', len(made), 1.0)
        for k in (1, NEAREST)
    ]


def _flat(pictures: np.ndarray) -> np.ndarray:
    return pictures.reshape(len(pictures), -1).astype(np.float64) / 255
