"""Scores of the built-in world: its readers tell what was generated, its table what should have been.

An attribute that both the given and the generated modality show is determined: it must be right. One that the
given modality leaves open must be distributed as the table says, given the determined ones.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vqdit.data import Example
from vqdit.data.preprocess import read_formats
from vqdit.data.world import World
from vqdit.data.world_captions import caption_entropy
from vqdit.data.world_readers import READERS, read_audio
from vqdit.data.world_scenes import ATTRIBUTES, DETERMINED, conditional, draw_scene
from vqdit.diffusion.clock import Task
from vqdit.evaluation.code_entropy import SCENES, code_entropy_rows
from vqdit.evaluation.distance import expected_total_variation, total_variation
from vqdit.evaluation.rows import Row, share
from vqdit.tokenizers.frozen import Tokenizer

UNREAD = -1
Readings = dict[str, np.ndarray]


class WorldScorer:
    """Scores generated data by the readers of the world."""

    def __init__(self, config: ConfigDict):
        formats = read_formats(config.data)
        self._rate = formats.audio.rate
        self._world = World(0, 0, image_size=formats.image.size, video_size=formats.video.size,
                            video_frames=formats.video.frames, audio_rate=formats.audio.rate,
                            audio_seconds=formats.audio.seconds)

    def score(
        self, task: Task, examples: Sequence[Example], generated: Mapping[str, Sequence[Any]]
    ) -> list[Row]:
        """Accuracy of the determined attributes, distance of the others, agreement of what is generated jointly.

        The ceiling of an accuracy is that of the reader on the examples' own data.
        """
        scenes = scene_attributes(examples)
        known = {name: scenes[name] for name in shown_by(task.given)}
        rows, readings = [], {}
        for modality in task.generated:
            label = f'{modality} ' if len(task.generated) > 1 else ''
            readings[modality] = self.read(modality, generated[modality])
            real = self.read(modality, [example[modality] for example in examples])
            rows += accuracy_rows(str(task), label, readings[modality], real, known)
            rows += distance_rows(str(task), label, readings[modality], known)
        return rows + agreement_rows(str(task), readings)

    def score_reconstruction(self, modality: str, examples: Sequence[Example], decoded: Sequence[Any]) -> list[Row]:
        """Accuracy of all attributes after encoding and decoding."""
        real = self.read(modality, [example[modality] for example in examples])
        read = self.read(modality, decoded)
        return accuracy_rows(f'reconstruct {modality}', '', read, real, scene_attributes(examples))

    def entropy(self, task: Task) -> float | None:
        """Nats of the generated data given the rest, where they are known: those of a caption."""
        return caption_entropy(shown_by(task.given)) if task.generated == ('text',) else None

    def code_rows(self, task: Task, tokenizers: Mapping[str, Tokenizer]) -> list[Row]:
        """How many bits the codes of a modality take when a caption is given, which tells the whole scene."""
        name = task.generated[0]
        if task.given != ('text',) or len(task.generated) > 1:
            return []
        rng = np.random.default_rng(0)
        scenes = [draw_scene(rng) for _ in range(SCENES)]
        return code_entropy_rows(str(task), tokenizers[name], partial(self._world.render, name), scenes)

    def read(self, modality: str, items: Iterable[Any]) -> Readings:
        """The attributes that every item shows, int [n] each; UNREAD where the reader finds nothing."""
        reader = partial(read_audio, rate=self._rate) if modality == 'audio' else READERS[modality]
        readings = [reader(item) for item in items]
        return {
            name: np.array([UNREAD if reading[name] is None else reading[name] for reading in readings], int)
            for name in DETERMINED[modality]
        }


def shown_by(modalities: Iterable[str]) -> tuple[str, ...]:
    """The attributes that at least one of the modalities shows."""
    shown = set().union(*(DETERMINED[modality] for modality in modalities))
    return tuple(name for name in ATTRIBUTES if name in shown)


def scene_attributes(examples: Sequence[Example]) -> Readings:
    """The true attributes, int [n] each."""
    return {name: np.array([example['scene'].indices[name] for example in examples], int) for name in ATTRIBUTES}


def accuracy_rows(task: str, label: str, read: Readings, real: Readings, known: Readings) -> list[Row]:
    """One row for each determined attribute, one for their mean and one for all of them together."""
    names = [name for name in read if name in known]
    if not names:
        return []
    right, ceiling = ({name: part[name] == known[name] for name in names} for part in (read, real))
    rows = [share(task, f'{label}{name} accuracy', right[name], float(ceiling[name].mean())) for name in names]
    together, together_ceiling = (np.stack(list(part.values())) for part in (right, ceiling))
    mean = Row(task, f'{label}attribute accuracy', float(together.mean()), 'fraction', together.shape[1],
               float(together_ceiling.mean()))  # fmt: skip
    return [*rows, mean, share(task, f'{label}all attributes', together.all(0), float(together_ceiling.all(0).mean()))]


def distance_rows(task: str, label: str, read: Readings, known: Readings) -> list[Row]:
    """Total variation between each attribute that is left open and its true conditional."""
    rows = []
    for name in read:
        if name not in known:
            value, noise = conditional_distance(name, read[name], known)
            rows.append(
                Row(task, f'{label}{name} distance', value, 'total variation', len(read[name]), noise)
            )
    return rows


def conditional_distance(of: str, read: np.ndarray, known: Readings) -> tuple[float, float]:
    """The distance of `read [n]` to p(of | known), and what it would be by chance with a perfect sampler.

    Examples whose true conditional is the same are pooled; the distances of the pools are averaged by their
    sizes. An unread item counts as a value of probability zero.
    """
    pools: dict[tuple[float, ...], list[int]] = {}
    for index, value in enumerate(read):
        truth = _conditional(of, tuple((name, int(column[index])) for name, column in known.items()))
        pools.setdefault(truth, []).append(value)
    distance = noise = 0.0
    for truth, values in pools.items():
        probabilities = np.array([*truth, 0.0])
        counts = np.bincount(np.array(values) % len(probabilities), minlength=len(probabilities))
        distance += len(values) / len(read) * total_variation(counts, probabilities)
        noise += len(values) / len(read) * expected_total_variation(len(values), probabilities)
    return distance, noise


@cache
def _conditional(of: str, known: tuple[tuple[str, int], ...]) -> tuple[float, ...]:
    # Rounded, so that equal conditionals of different scenes fall into one pool.
    return tuple(np.round(conditional(dict(known), of), 9).tolist())


def agreement_rows(task: str, readings: Mapping[str, Readings]) -> list[Row]:
    """How often modalities that were generated together show one and the same scene."""
    rows = []
    for one, other in itertools.combinations(readings, 2):
        shared = [name for name in readings[one] if name in readings[other]]
        same = [(readings[one][name] == readings[other][name]) & (readings[one][name] != UNREAD) for name in shared]
        rows.append(share(task, f'{one} and {other} agree', np.all(same, axis=0)))
    return rows
