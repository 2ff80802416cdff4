import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqdit.diffusion.clock import (
    ABSENT,
    GENERATED,
    GIVEN,
    Task,
    TaskMixture,
    clock_of,
    stratified_choice,
    stratified_times,
)
from vqdit.errors import UserError
from vqdit.tokenizers.spec import TokenLayout, TokenSpec

LAYOUT = TokenLayout({'image': TokenSpec((2, 2), 7), 'text': TokenSpec((3,), 5), 'audio': TokenSpec((2,), 4)})


def test_a_task_is_what_it_says():
    task = Task.parse('text, image->audio')
    assert (task.given, task.generated) == (('text', 'image'), ('audio',))
    assert str(task) == 'text,image->audio'
    assert Task.parse(str(task)) == task
    np.testing.assert_array_equal(Task.parse('text->audio').roles(LAYOUT),
                                  [ABSENT] * 4 + [GIVEN] * 3 + [GENERATED] * 2)


@pytest.mark.parametrize(('text', 'said'), [
    ('text', 'no "->"'), ('text->', 'generates nothing'), ('text->text,image', 'both gives and generates text')])
def test_bad_tasks_are_refused(text, said):
    with pytest.raises(UserError, match=said):
        Task.parse(text)


def test_an_unknown_modality_names_the_nearest():
    with pytest.raises(UserError, match='Did you mean "image"'):
        Task.parse('imge->text').roles(LAYOUT)


def test_clock_of_roles():
    roles = jnp.array([[GIVEN, ABSENT, GENERATED]])
    np.testing.assert_allclose(clock_of(roles, jnp.array([[0.3]])), [[0, 1, 0.3]], rtol=1e-6)


def test_stratified_times_hit_every_stratum_once():
    times = np.asarray(stratified_times(jax.random.key(0), 64))
    assert times.min() > 0 and times.max() <= 1
    np.testing.assert_array_equal(np.sort(np.ceil(times * 64)), np.arange(1, 65))


def test_stratified_choice_keeps_the_shares():
    index = np.asarray(stratified_choice(jax.random.key(0), [1.0, 2.0, 1.0], 400))
    np.testing.assert_allclose(np.bincount(index), [100, 200, 100], atol=1)


def test_mixture_draws_its_tasks_with_one_noise_level_a_modality():
    mixture = TaskMixture({'text->image': 1.0, '->image,audio': 1.0}, LAYOUT)
    roles, clock = mixture.draw(jax.random.key(3), 32)
    split = LAYOUT.split(clock)
    for part in split.values():
        assert (np.asarray(part) == np.asarray(part)[:, :1]).all()
    given_text = np.asarray(LAYOUT.split(roles)['text'])[:, 0] == GIVEN
    assert given_text.sum() == 16
    np.testing.assert_array_equal(np.asarray(split['text'])[:, 0], np.where(given_text, 0, 1))
    joint = ~given_text
    assert (np.asarray(split['image'])[joint, 0] != np.asarray(split['audio'])[joint, 0]).all()


@pytest.mark.parametrize('tasks', [{}, {'text->image': -1.0}, {'text->image': 0.0}])
def test_bad_weights_are_refused(tasks):
    with pytest.raises(UserError, match='weights'):
        TaskMixture(tasks, LAYOUT)
