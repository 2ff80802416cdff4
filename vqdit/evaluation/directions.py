"""Every direction of a model, generated from test data and scored: each example is counted once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from vqdit.data import Example, load
from vqdit.diffusion.clock import Task
from vqdit.evaluation.captions import CaptionsScorer
from vqdit.evaluation.digits import DigitsScorer
from vqdit.evaluation.likelihood import LikelihoodBound, VectorLikelihood
from vqdit.evaluation.rows import Row
from vqdit.evaluation.world import WorldScorer
from vqdit.generation import Generator
from vqdit.registry import choose
from vqdit.tokenizers.frozen import Tokenizer, stack
from vqdit.training.factory import build_process, learned_modalities
from vqdit.training.gaussian import build_space, is_gaussian

SHOWN = 8
Columns = Mapping[str, Sequence[Any]]


class Scorer(Protocol):
    """Turns data into figures."""

    def score(self, task: Task, examples: Sequence[Example], generated: Columns) -> list[Row]:
        """Rows about what was generated; the examples hold the given and the real data of the task."""

    def score_reconstruction(self, modality: str, examples: Sequence[Example], decoded: Sequence[Any]) -> list[Row]:
        """Rows about what the tokenizer of a modality leaves of the examples."""

    def entropy(self, task: Task) -> float | None:
        """Nats of the generated data given the rest, where they are known."""

    def code_rows(self, task: Task, tokenizers: Mapping[str, Tokenizer]) -> list[Row]:
        """Rows about the entropy of the generated codes given the rest, where it can be estimated."""


SCORERS = {'world': WorldScorer, 'digits': DigitsScorer, 'captions': CaptionsScorer}


@dataclass(frozen=True)
class Direction:
    """One task, measured: its rows, and the first of its data to look at."""

    task: Task
    rows: list[Row]
    given: Columns
    generated: Columns


def make_scorer(config: ConfigDict) -> Scorer:
    """The scorer that `config.evaluation.scorer` names. Raises UserError for an unknown one."""
    return find_scorer(config)(config)


def find_scorer(config: ConfigDict) -> Callable[[ConfigDict], Scorer]:
    """What makes the scorer: known before any data are. Raises UserError as `make_scorer` does."""
    return choose(SCORERS, config.evaluation.scorer, 'evaluation.scorer')


def measure_tokenizers(generator: Generator, config: ConfigDict, scorer: Scorer) -> list[Row]:
    """What the learned tokenizers leave of test data: encoded, decoded, scored."""
    rows = []
    for modality in learned_modalities(config):
        examples = read_examples(config, Task((), (modality,)))
        tokenizer = generator.tokenizers[modality]
        codes = tokenizer.encode(stack([example[modality] for example in examples]))
        rows += scorer.score_reconstruction(modality, examples, list(tokenizer.decode(codes)))
    return rows


def measure_directions(generator: Generator, config: ConfigDict, scorer: Scorer) -> list[Direction]:
    """Scores `config.evaluation.tasks`, or all tasks of training when it is empty.

    Raises UserError for a task that the model lacks before anything is generated.
    """
    section, directions = config.evaluation, []
    tasks = [Task.parse(text) for text in section.tasks or config.diffusion.tasks]
    for task in tasks:
        task.roles(generator.layout)
    examples = [read_examples(config, task) for task in tasks]
    likelihood = _likelihood(generator, config)
    with tqdm(total=sum(map(len, examples)), desc='evaluation', unit='sample') as bar:
        for task, real in zip(tasks, examples):
            generated = generate(generator, task, real, section.seed, bar)
            rows = scorer.score(task, real, generated)
            rows += likelihood.rows(task, real, section.seed, scorer.entropy(task))
            rows += scorer.code_rows(task, generator.tokenizers)
            given = {name: [example[name] for example in real[:SHOWN]] for name in task.given}
            shown = {name: items[:SHOWN] for name, items in generated.items()}
            directions.append(Direction(task, rows, given, shown))
    return directions


def _likelihood(generator: Generator, config: ConfigDict) -> LikelihoodBound | VectorLikelihood:
    if is_gaussian(config):
        return VectorLikelihood(generator, build_space(config, generator.layout, generator.tokenizers))
    return LikelihoodBound(generator, build_process(config, generator.layout, generator.tokenizers))


def read_examples(config: ConfigDict, task: Task) -> list[Example]:
    """Examples of `evaluation.split`, evenly spaced, as many as the config allows, with all data of the task."""
    section, modalities = config.evaluation, task.given + task.generated
    dataset = load(config.data, section.split, modalities, anchor=modalities[0])
    count = min(section.examples_of.get(str(task), section.examples), len(dataset))
    return [dataset[index] for index in np.arange(count) * len(dataset) // count]


def generate(
    generator: Generator, task: Task, examples: Sequence[Example], seed: int, bar: tqdm | None = None
) -> dict[str, list[Any]]:
    """One sample for every example."""
    generated: dict[str, list[Any]] = {name: [] for name in task.generated}
    for start in range(0, len(examples), generator.batch_size):
        part = examples[start : start + generator.batch_size]
        given = {name: [example[name] for example in part] for name in task.given}
        for name, items in generator.generate(task, given, len(part), seed, first_index=start).items():
            generated[name].extend(items)
        if bar is not None:
            bar.update(len(part))
    return generated
