import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict

from vqdit.diffusion.clock import ABSENT, GENERATED, GIVEN, Task
from vqdit.diffusion.samplers import Ordered
from vqdit.errors import UserError
from vqdit.generation.devices import mesh_for_rows
from vqdit.generation.generator import Generator
from vqdit.models.multimodal import MultimodalDiT
from vqdit.tokenizers.spec import TokenLayout
from vqdit.tokenizers.text import WordTokenizer
from vqdit.training.defaults import defaults
from vqdit.training.sharding import make_mesh

TOKENIZERS = {'question': WordTokenizer(('red', 'green', 'blue'), 3), 'answer': WordTokenizer(('yes', 'no'), 2)}
LAYOUT = TokenLayout({name: tokenizer.spec for name, tokenizer in TOKENIZERS.items()})
QUESTION, ANSWER = LAYOUT.slice('question'), LAYOUT.slice('answer')
WORDS = ['red', 'blue green', 'green red blue', 'blue']


@pytest.fixture(scope='module')
def model_and_params():
    """A model whose logits depend on everything it sees."""
    model = MultimodalDiT(LAYOUT, FrozenDict({}), width=8, depth=1, heads=2)
    codes = jnp.zeros((1, LAYOUT.length), jnp.int32)
    params = jax.jit(model.init)(jax.random.key(0), codes, jnp.zeros(codes.shape))['params']
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda x: np.asarray(x) + 0.5 * rng.standard_normal(x.shape, np.float32), params)


def _generator(model_and_params, batch_size: int) -> Generator:
    model, params = model_and_params
    return Generator(model, params, TOKENIZERS, Ordered(steps=2), batch_size=batch_size)


@pytest.fixture(scope='module')
def generator(model_and_params):
    return _generator(model_and_params, 4)


def test_what_is_given_stays_and_what_is_generated_is_filled_in(generator):
    task = Task.parse('question->answer')
    codes = generator.encode(task, {'question': WORDS}, 4)
    made = generator.generate_codes(task, codes)
    np.testing.assert_array_equal(made[:, QUESTION], codes[:, QUESTION])
    np.testing.assert_array_equal(codes[:, ANSWER], np.tile(LAYOUT.mask_ids[ANSWER], (4, 1)))
    assert (made[:, ANSWER] < TOKENIZERS['answer'].spec.num_codes).all()


def test_what_is_absent_stays_masked(generator):
    made = generator.generate_codes(Task.parse('->answer'), np.zeros((4, LAYOUT.length), np.int32))
    np.testing.assert_array_equal(made[:, QUESTION], np.tile(LAYOUT.mask_ids[QUESTION], (4, 1)))


def test_a_role_for_every_token_fills_in_only_the_gaps(generator):
    codes = np.zeros((4, LAYOUT.length), np.int32)
    roles = np.tile(np.array([GIVEN, GENERATED, GIVEN, ABSENT, GENERATED]), (4, 1))
    made = generator.fill(codes, roles)
    np.testing.assert_array_equal(made[:, [0, 2]], 0)
    np.testing.assert_array_equal(made[:, 3], LAYOUT.mask_ids[3])
    assert (made[:, [1, 4]] < LAYOUT.mask_ids[[1, 4]]).all()


@pytest.mark.parametrize('batch_size', [1, 24])
def test_samples_do_not_depend_on_the_batch_or_the_devices(model_and_params, generator, batch_size):
    task, codes = Task.parse('->question,answer'), np.zeros((7, LAYOUT.length), np.int32)
    expected = generator.generate_codes(task, codes, seed=3)
    np.testing.assert_array_equal(_generator(model_and_params, batch_size).generate_codes(task, codes, 3), expected)
    assert len(np.unique(expected, axis=0)) > 1


def test_a_sample_belongs_to_its_seed_and_its_global_index(generator):
    task, codes = Task.parse('->question,answer'), np.zeros((6, LAYOUT.length), np.int32)
    whole = generator.generate_codes(task, codes, seed=1)
    np.testing.assert_array_equal(generator.generate_codes(task, codes[:2], seed=1, first_index=4), whole[4:])
    assert (generator.generate_codes(task, codes, seed=2) != whole).any()


def test_the_rest_of_a_series_needs_no_compilation_of_its_own(generator):
    task, programs = Task.parse('->question,answer'), []
    for start, count in ((0, 4), (4, 4), (8, 3)):
        generator.generate_codes(task, np.zeros((count, LAYOUT.length), np.int32), first_index=start)
        programs.append(generator._sample._cache_size())
    assert programs[0] == programs[-1]


def test_one_given_item_serves_all_samples_and_results_are_data(generator):
    answers = generator.generate(Task.parse('question->answer'), {'question': ['red blue']}, count=4)['answer']
    assert len(answers) == 4 and all(set(text.split()) <= {'yes', 'no', '<unknown>'} for text in answers)


@pytest.mark.parametrize('given', [{}, {'question': ['red', 'green']}])
def test_missing_or_miscounted_data_is_refused(generator, given):
    with pytest.raises(UserError, match='question'):
        generator.generate(Task.parse('question->answer'), given, count=3)


def test_sampling_works_under_the_mesh_of_a_training(generator):
    task, codes = Task.parse('->answer'), np.zeros((4, LAYOUT.length), np.int32)
    expected = generator.generate_codes(task, codes)
    with jax.set_mesh(make_mesh(defaults().mesh)):
        np.testing.assert_array_equal(generator.generate_codes(task, codes), expected)


def test_rows_are_split_over_as_many_devices_as_divide_them():
    devices = len(jax.local_devices())
    assert len(mesh_for_rows(2 * devices).devices) == devices
    assert len(mesh_for_rows(1).devices) == 1
    assert len(mesh_for_rows(devices + 1).devices) == 1
