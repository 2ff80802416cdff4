import itertools
import threading

import numpy as np
import pytest

from vqdit.data.batches import Batches, epoch_order, evaluation_batches, stack
from vqdit.errors import DataError, UserError


class Numbers:
    """Example i holds i, in several forms."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        assert 0 <= index < self.count
        return {'codes': np.full(3, index), 'label': index, 'name': f'{index}.png'}


class Broken(Numbers):
    def __getitem__(self, index):
        raise DataError(f'{index}.png is broken')


def labels(batches):
    return np.concatenate([batch['label'] for batch in batches])


def prefetching():
    return [thread for thread in threading.enumerate() if 'prefetch' in thread.name]


def assert_threads_end():
    for thread in prefetching():
        thread.join(timeout=5)
    assert not prefetching()


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])


def test_every_epoch_has_each_example_once_in_an_order_of_its_own():
    batches = Batches(Numbers(10), batch_size=4, seed=0)
    seen = labels(batches.at(step) for step in range(15)).reshape(6, 10)
    np.testing.assert_array_equal(np.sort(seen), np.tile(np.arange(10), (6, 1)))
    assert len({tuple(epoch) for epoch in seen.tolist()}) == 6


def test_batch_larger_than_the_dataset_spans_epochs():
    seen = Batches(Numbers(3), batch_size=12, seed=0).at(5)['label']
    np.testing.assert_array_equal(np.bincount(seen), [4, 4, 4])


@pytest.mark.parametrize('step', [0, 7, 10**12])
def test_iteration_from_any_step_gives_the_batches_of_these_steps(step):
    batches = Batches(Numbers(1000), batch_size=8, seed=3)
    stream = batches.iterate(step)
    for number, batch in enumerate(itertools.islice(stream, 20), step):
        assert_same(batch, batches.at(number))
    stream.close()


def test_closing_and_forgetting_an_iterator_ends_its_threads():
    stream = Batches(Numbers(100), batch_size=4, seed=0).iterate()
    next(stream)
    assert prefetching()
    stream.close()
    assert_threads_end()
    next(Batches(Numbers(100), batch_size=4, seed=0).iterate())
    assert_threads_end()


def test_an_error_in_a_reading_thread_arrives_as_it_was_raised():
    with pytest.raises(DataError, match=r'png is broken'):
        next(Batches(Broken(100), batch_size=4, seed=0).iterate())
    assert_threads_end()


def test_seeds_give_other_orders():
    orders = [Batches(Numbers(100), 100, seed).at(0)['label'] for seed in (0, 1, -1)]
    assert all((one != other).any() for one, other in itertools.combinations(orders, 2))


def test_consecutive_seeds_do_not_share_the_orders_of_shifted_epochs():
    assert (epoch_order(100, 0, 1) != epoch_order(100, 1, 0)).any()


def philox(counter, key):
    """Philox4x64-10, by the paper."""
    word = 2**64 - 1
    for turn in range(10):
        if turn:
            key = [(key[0] + 0x9E3779B97F4A7C15) & word, (key[1] + 0xBB67AE8584CAA73B) & word]
        low, high = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [
            (high >> 64) ^ counter[1] ^ key[0],
            high & word,
            (low >> 64) ^ counter[3] ^ key[1],
            low & word,
        ]
    return counter


@pytest.mark.parametrize('seed, epoch', [(0, 0), (7, 3), (-1, 5)])
def test_order_sorts_the_examples_by_their_philox_words(seed, epoch):
    words = [
        word for block in range(1, 4) for word in philox([block, 0, 0, 0], [seed % 2**64, epoch])
    ]
    assert epoch_order(12, seed, epoch).tolist() == sorted(range(12), key=words.__getitem__)


def test_orders_are_uniform():
    counts = np.zeros((4, 4))
    for epoch in range(4000):
        counts[np.arange(4), epoch_order(4, 0, epoch)] += 1
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 3 / 4)


@pytest.mark.parametrize('step', [0, 3, 99])
def test_processes_get_the_consecutive_parts_of_the_one_global_batch(step):
    whole = Batches(Numbers(50), 12, seed=1).at(step)
    parts = [
        Batches(Numbers(50), 12, 1, process_index=i, process_count=3).at(step) for i in range(3)
    ]
    assert [len(part['label']) for part in parts] == [4, 4, 4]
    np.testing.assert_array_equal(labels(parts), whole['label'])


def test_batch_size_that_processes_cannot_share_is_refused():
    with pytest.raises(UserError, match=r'batch size 10 .* 4 processes'):
        Batches(Numbers(50), 10, 0, process_index=0, process_count=4)
    with pytest.raises(UserError, match='batch size 0'):
        Batches(Numbers(50), 0, 0)


def test_empty_dataset_is_refused():
    with pytest.raises(DataError, match='no examples'):
        Batches(Numbers(0), 4, 0)
    with pytest.raises(DataError, match='no examples'):
        next(evaluation_batches(Numbers(0), 4))


@pytest.mark.parametrize('count', [1, 7, 8, 9, 16])
@pytest.mark.parametrize('processes', [1, 2])
def test_evaluation_counts_each_example_once_in_fixed_shapes(count, processes):
    seen = []
    for index in range(processes):
        batches = list(
            evaluation_batches(Numbers(count), 8, process_index=index, process_count=processes)
        )
        assert len(batches) == -(-count // 8)
        for batch in batches:
            assert batch['codes'].shape == (8 // processes, 3)
            assert batch['mask'].dtype == bool
            seen.append(batch['label'][batch['mask']])
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(count))


def test_evaluation_keeps_the_order():
    batches = evaluation_batches(Numbers(100), 8, threads=4)
    np.testing.assert_array_equal(labels(batches)[:100], np.arange(100))


def test_stack_gives_arrays_for_numbers_and_lists_for_the_rest():
    example = {
        'image': np.zeros((2, 2, 3), np.uint8),
        'audio': np.zeros(4),
        'label': 3,
        'big': np.int64(5),
        'weight': 0.5,
        'kept': True,
        'text': 'a cat',
        'name': np.str_('x'),
        'scene': ('circle', 2),
    }
    batch = stack([example, example])
    dtypes = {key: value.dtype for key, value in batch.items() if isinstance(value, np.ndarray)}
    assert dtypes == {
        'image': np.uint8,
        'audio': np.float32,
        'label': np.int32,
        'big': np.int32,
        'weight': np.float32,
        'kept': np.bool_,
    }
    assert batch['image'].shape == (2, 2, 2, 3)
    assert batch['text'] == ['a cat', 'a cat']
    assert batch['name'] == ['x', 'x']
    assert batch['scene'] == [('circle', 2)] * 2


def test_stack_names_the_key_that_differs():
    with pytest.raises(DataError, match=r'"image" .* float32 \[2\], float32 \[3\]'):
        stack([{'image': np.zeros(2, np.float32)}, {'image': np.zeros(3, np.float32)}])
    with pytest.raises(DataError, match='"text"'):
        stack([{'label': 1, 'text': 'a'}, {'label': 2}])


def test_own_collation():
    batches = Batches(Numbers(9), 3, 0, collate=lambda examples: {'names': len(examples)})
    assert batches.at(0) == {'names': 3}


def test_reading_real_digits_in_threads(shared_data):
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(shared_data / 'tfds' / 'mnist' / '3.0.1').as_data_source()
    batches = Batches(source['test'], 32, seed=0)
    stream = batches.iterate(5)
    assert_same(next(stream), batches.at(5))
    stream.close()
    assert batches.at(0)['image'].shape == (32, 28, 28, 1)
