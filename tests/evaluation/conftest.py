"""A generator that knows the answers: it hands out the test data itself."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from vqdit.data import load
from vqdit.tokenizers.spec import TokenLayout, TokenSpec

CODES = {'image': 64, 'audio': 32, 'text': 16}
LENGTHS = {'image': 4, 'audio': 3, 'text': 2}


class Remembering:
    """A tokenizer that loses nothing; its codes are arbitrary."""

    def __init__(self, name):
        self.spec = TokenSpec((LENGTHS[name],), CODES[name])
        self.fingerprint, self._name, self._items = f'of {name}', name, []

    def encode(self, items, strict=True):
        self._items = list(items)
        return np.zeros((len(items), self.spec.length), np.int32)

    def decode(self, codes):
        assert len(codes) == len(self._items)
        return self._items


class Knowing:
    """Generates the example's own data and takes note of what was asked for."""

    def __init__(self, config, batch_size):
        self.tokenizers = {name: Remembering(name) for name in CODES}
        self.layout = TokenLayout({name: self.tokenizers[name].spec for name in CODES})
        self.batch_size, self.params, self.asked = batch_size, {}, []
        self.model = SimpleNamespace(apply=self._uniform)
        self._data = load(config.data, 'test', tuple(CODES))

    def _uniform(self, variables, codes, clock):
        shapes = {name: (len(codes), LENGTHS[name], CODES[name]) for name in CODES}
        return {name: jnp.zeros(shape) for name, shape in shapes.items()}

    def run(self, function, rows, *rest):
        return function(self.params, *rows, *rest)

    def generate(self, task, given, count, seed=0, first_index=0):
        self.asked.append((str(task), first_index, count))
        examples = [self._data[first_index + index] for index in range(count)]
        for name in task.given:
            for item, example in zip(given[name], examples, strict=True):
                np.testing.assert_array_equal(item, example[name])
        return {name: [example[name] for example in examples] for name in task.generated}


@pytest.fixture
def config():
    return ConfigDict({
        'data': {'source': 'world', 'train_examples': 8, 'test_examples': 20, 'audio': {'rate': 8000, 'seconds': 0.5}},
        'tokenizers': {'image': {'kind': 'pixels'}, 'audio': {'kind': 'log_mel'}, 'text': {'kind': 'words'}},
        'diffusion': {
            'model': {},
            'tasks': {'text->image': 1.0},
            'process': {'schedule': 'linear'},
            'sampler': {'name': 'ordered', 'steps': 4, 'guidance': 1.0},
        },
        'evaluation': {'scorer': 'world', 'tasks': ('text->image', 'image,audio->text'), 'split': 'test',
                       'examples': 100, 'examples_of': {}, 'seed': 3},
    }).lock()


@pytest.fixture
def knowing(config):
    return Knowing(config, batch_size=8)
