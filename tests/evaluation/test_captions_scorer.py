"""Captions and pictures scored against the example's own."""

import numpy as np
from ml_collections import ConfigDict

from vqdit.diffusion.clock import Task
from vqdit.evaluation.captions import CaptionsScorer, retrieval_rows

SCORER = CaptionsScorer(ConfigDict())
TEXTS = ['red apple', 'green apple on a table', 'flag of a country', 'a small grey cat']
PICTURES = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), np.uint8)
EXAMPLES = [{'text': text, 'image': picture} for text, picture in zip(TEXTS, PICTURES)]


def score(task, **generated):
    return {row.metric: row for row in SCORER.score(Task.parse(task), EXAMPLES, generated)}


def test_own_captions_reach_the_ceiling():
    rows = score('image->text', text=TEXTS)
    assert set(rows) == {'BLEU-4', 'ROUGE-L', 'CIDEr-D', 'exact caption'}
    assert all(row.value == row.ceiling and row.value > 0 for row in rows.values())
    wrong = score('image->text', text=TEXTS[1:] + TEXTS[:1])
    assert all(row.value < 0.2 * row.ceiling for row in wrong.values())


def test_own_picture_is_nearest_even_under_noise():
    noisy = np.clip(PICTURES + np.random.default_rng(1).normal(0, 40, PICTURES.shape), 0, 255).astype(np.uint8)
    assert score('text->image', image=list(noisy))['own picture among nearest 1'].value == 1


def test_another_picture_is_not_its_own():
    rows = retrieval_rows('text->image', np.roll(PICTURES, 1, axis=0), PICTURES)
    assert [row.value for row in rows] == [0.0, 1.0]  # of four, all are among the nearest five


def test_pictures_all_alike_find_one_of_them():
    rows = retrieval_rows('text->image', np.repeat(PICTURES[:1], 4, axis=0), PICTURES)
    assert rows[0].value == 0.25


def test_reconstruction_has_psnr_and_ssim():
    rows = {row.metric: row.value for row in SCORER.score_reconstruction('image', EXAMPLES, list(PICTURES ^ 1))}
    assert abs(rows['PSNR'] - 20 * np.log10(255)) < 1e-6 and 0.99 < rows['SSIM'] < 1
    assert SCORER.score_reconstruction('audio', EXAMPLES, []) == []


def test_free_generation_has_nothing_to_be_compared_with():
    assert score('->image,text', image=list(PICTURES), text=TEXTS) == {}
