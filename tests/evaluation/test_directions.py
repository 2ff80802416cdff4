"""Directions: every example once, real data beside generated, unknown things refused before any work."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from vqdit.diffusion.clock import Task
from vqdit.errors import UserError
from vqdit.evaluation.directions import make_scorer, measure_directions, measure_tokenizers, read_examples


def test_every_example_is_generated_once_and_the_knowing_are_right(config, knowing):
    directions = measure_directions(knowing, config, make_scorer(config))
    assert knowing.asked == [
        (task, start, count) for task in config.evaluation.tasks for start, count in [(0, 8), (8, 8), (16, 4)]
    ]
    assert [str(direction.task) for direction in directions] == list(config.evaluation.tasks)
    counts = {row.count for direction in directions for row in direction.rows if 'code entropy' not in row.metric}
    assert counts == {20}
    for direction in directions:
        accuracies = [row for row in direction.rows if row.unit == 'fraction']
        assert len(accuracies) > 4 and {row.value for row in accuracies} == {1.0}
        assert {len(items) for items in [*direction.given.values(), *direction.generated.values()]} == {8}


def test_likelihood_of_uniform_guesses_is_the_logarithm_of_the_codes(config, knowing):
    directions = measure_directions(knowing, config, make_scorer(config))
    rows = [row for direction in directions for row in direction.rows if row.metric == 'likelihood bound']
    assert [row.unit for row in rows] == ['nats per token', 'bits per token'] * 2
    np.testing.assert_allclose([row.value for row in rows[::2]], np.log([64, 16]), rtol=0.25)
    assert rows[0].ceiling is None and rows[2].ceiling > 0
    for nats, bits in (rows[:2], rows[2:]):
        assert bits.value == pytest.approx(nats.value / np.log(2))
    assert rows[3].ceiling == pytest.approx(rows[2].ceiling / np.log(2))


def test_codes_that_never_change_take_no_bits(config, knowing):
    first, other = measure_directions(knowing, config, make_scorer(config))
    entropies = [row for row in first.rows if 'code entropy' in row.metric]
    assert [row.value for row in entropies] == [0.0, 0.0] and entropies[0].unit == 'bits per token'
    assert not any('code entropy' in row.metric for row in other.rows)


def test_tokenizers_that_lose_nothing_are_right(config, knowing):
    rows = measure_tokenizers(knowing, config, make_scorer(config))
    assert {row.task for row in rows} == {'reconstruct image', 'reconstruct audio'}
    assert {(row.value, row.count) for row in rows} == {(1.0, 20)}


def test_fewer_examples_are_spread_over_the_split(config):
    config.evaluation.examples = 6
    examples = read_examples(config, Task.parse('text->audio'))
    config.evaluation.examples = 100
    every = read_examples(config, Task.parse('text->audio'))
    assert [example['text'] for example in examples] == [every[index]['text'] for index in (0, 3, 6, 10, 13, 16)]
    assert set(examples[0]) == {'text', 'audio', 'scene'}


def test_a_task_may_have_a_number_of_examples_of_its_own(config):
    config.evaluation.update(examples=6)
    config.evaluation.examples_of = ConfigDict({'text->image': 3})
    assert [len(read_examples(config, Task.parse(text))) for text in ('text->image', 'text->audio')] == [3, 6]


def test_without_tasks_those_of_training_are_measured(config, knowing):
    config.evaluation.tasks = ()
    assert [str(d.task) for d in measure_directions(knowing, config, make_scorer(config))] == ['text->image']


def test_unknown_names_are_refused_before_any_work(config, knowing):
    config.evaluation.tasks = ('text->image', 'text->vidio')
    with pytest.raises(UserError, match='vidio'):
        measure_directions(knowing, config, make_scorer(config))
    assert knowing.asked == []
    config.evaluation.scorer = 'digit'
    with pytest.raises(UserError, match='Did you mean "digits"'):
        make_scorer(config)
