"""Labels of generated words, pictures and sounds, with judges that are planted."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from vqdit.diffusion.clock import Task
from vqdit.errors import UserError
from vqdit.evaluation.digits import DigitsScorer

WORDS = ('zero', 'one', 'two')


class FirstValue:
    """A judge that reads the label off the first value."""

    accuracy = 0.97

    def __call__(self, items):
        return np.array([int(item.flat[0]) for item in items])


@pytest.fixture
def scorer():
    scorer = DigitsScorer(ConfigDict({'data': {'source': 'pairs', 'audio': {'rate': 8000}}}))
    scorer._image_judge = scorer._sound_judge = FirstValue()
    return scorer


def examples(labels, speakers=None):
    rows = [{'label': label, 'label_name': WORDS[label]} for label in labels]
    return [row | {'speaker': name} for row, name in zip(rows, speakers)] if speakers else rows


def pictures(labels):
    return [np.full((2, 2, 1), label, np.uint8) for label in labels]


def test_words_are_compared(scorer):
    [row] = scorer.score(Task.parse('image->text'), examples([0, 1, 2, 2]), {'text': ['zero', 'two', 'two', 'tow']})
    assert (row.metric, row.value, row.count, row.ceiling) == ('label accuracy', 0.5, 4, None)


def test_pictures_are_judged_and_the_judge_is_the_ceiling(scorer):
    [row] = scorer.score(Task.parse('text->image'), examples([0, 1, 2]), {'image': pictures([0, 1, 1])})
    assert row.value == pytest.approx(2 / 3) and row.ceiling == 0.97


def test_every_speaker_has_a_row(scorer):
    real = examples([0, 1, 2, 0], ['theo', 'jackson', 'theo', 'theo'])
    rows = scorer.score(Task.parse('audio->text'), real, {'text': ['zero', 'zero', 'one', 'zero']})
    found = {row.metric: (row.value, row.count) for row in rows}
    assert found == {
        'label accuracy': (0.5, 4), 'label accuracy, jackson': (0.0, 1), 'label accuracy, theo': (2 / 3, 3),
    }  # fmt: skip


def test_joint_generation_must_agree(scorer):
    made = {'image': pictures([0, 1, 2]), 'text': ['zero', 'two', 'nonsense']}
    [row] = scorer.score(Task.parse('->image,text'), examples([2, 1, 0]), made)
    assert row.metric == 'image and text agree' and row.value == pytest.approx(1 / 3)


def test_reconstructions_are_judged(scorer):
    [row] = scorer.score_reconstruction('image', examples([0, 1]), pictures([0, 0]))
    assert (row.task, row.value) == ('reconstruct image', 0.5)


def test_no_judge_for_films(scorer):
    with pytest.raises(UserError, match='cannot judge video'):
        scorer.score(Task.parse('text->video'), examples([0]), {'video': [np.zeros((2, 2, 2, 3))]})
