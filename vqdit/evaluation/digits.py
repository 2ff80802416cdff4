"""Scores of labelled data: words are compared, pictures and sounds are judged, against the label that was given."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vqdit.data import Dataset, Example, load
from vqdit.data.preprocess import read_formats
from vqdit.diffusion.clock import Task
from vqdit.errors import UserError
from vqdit.evaluation.judges import Judge, image_judge, sound_judge
from vqdit.evaluation.rows import Row, share
from vqdit.tokenizers.frozen import Tokenizer


class DigitsScorer:
    """How often what was generated has the label of what was given. Judges are trained when they are first needed."""

    def __init__(self, config: ConfigDict):
        self._data = config.data.to_dict()

    @cached_property
    def _image_judge(self) -> Judge:
        return image_judge(self._load('train', 'image'), self._load('test', 'image'))

    @cached_property
    def _sound_judge(self) -> Judge:
        rate = read_formats(self._data).audio.rate
        return sound_judge(self._load('train', 'audio'), self._load('test', 'audio'), rate)

    def _load(self, split: str, modality: str) -> Dataset:
        # The judges have their own augmentation.
        plain = {key: value for key, value in self._data.items() if key not in ('augment', 'balance')}
        return load(plain, split, (modality,), anchor=modality)

    def judge(self, modality: str) -> Judge:
        """The judge of a modality. Raises UserError where there is none."""
        if modality == 'image':
            return self._image_judge
        if modality == 'audio':
            return self._sound_judge
        raise UserError(f'evaluation.scorer=digits cannot judge {modality}; leave it out of evaluation.tasks')

    def score(
        self, task: Task, examples: Sequence[Example], generated: Mapping[str, Sequence[Any]]
    ) -> list[Row]:
        """The share of right labels, and for words that of every speaker of the given sounds."""
        rows = []
        for modality in task.generated:
            label = f'{modality} ' if len(task.generated) > 1 else ''
            if task.given:
                right, ceiling = self._right(modality, examples, generated[modality])
                rows.append(share(str(task), f'{label}label accuracy', right, ceiling))
                if 'audio' in task.given and modality == 'text':
                    rows += speaker_rows(str(task), f'{label}label accuracy', examples, right, ceiling)
        return rows + self._agreement(task, examples, generated)

    def score_reconstruction(self, modality: str, examples: Sequence[Example], decoded: Sequence[Any]) -> list[Row]:
        """The share of labels that the judge still sees after encoding and decoding."""
        right, ceiling = self._right(modality, examples, decoded)
        return [share(f'reconstruct {modality}', 'label accuracy', right, ceiling)]

    def entropy(self, task: Task) -> float | None:
        """A given picture or sound leaves no doubt about the word."""
        return 0.0 if task.generated == ('text',) and task.given else None

    def code_rows(self, task: Task, tokenizers: Mapping[str, Tokenizer]) -> list[Row]:
        """Not known for real data."""
        return []

    def _labels(self, modality: str, examples: Sequence[Example], items: Sequence[Any]) -> np.ndarray:
        """The label of every item, int [n]; -1 for a word that is none."""
        if modality == 'text':
            known = {example['label_name']: example['label'] for example in examples}
            return np.array([known.get(word, -1) for word in items])
        return self.judge(modality)(items)

    def _right(
        self, modality: str, examples: Sequence[Example], items: Sequence[Any]
    ) -> tuple[np.ndarray, float | None]:
        labels = np.array([example['label'] for example in examples])
        ceiling = None if modality == 'text' else self.judge(modality).accuracy
        return self._labels(modality, examples, items) == labels, ceiling

    def _agreement(
        self, task: Task, examples: Sequence[Example], generated: Mapping[str, Sequence[Any]]
    ) -> list[Row]:
        """How often everything that was generated together has one label."""
        if len(task.generated) < 2:
            return []
        labels = np.stack([self._labels(name, examples, generated[name]) for name in task.generated])
        same = (labels == labels[:1]).all(0) & (labels[0] >= 0)
        return [share(str(task), f'{" and ".join(task.generated)} agree', same)]


def speaker_rows(
    task: str, metric: str, examples: Sequence[Example], right: np.ndarray, ceiling: float | None
) -> list[Row]:
    """One row for every speaker, where the examples name them."""
    speakers = np.array([example.get('speaker', '') for example in examples])
    return [
        share(task, f'{metric}, {speaker}', right[speakers == speaker], ceiling)
        for speaker in sorted(set(speakers.tolist()) - {''})
    ]
