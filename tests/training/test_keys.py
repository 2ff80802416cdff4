"""Keys by name: equal for equal names and seeds, different otherwise, and the same in every process."""

import itertools

import jax
import numpy as np
from jax.random import key_data

from vqdit.training.keys import named_key

NAMES = ('image tokenizer', 'audio tokenizer', 'diffusion', 'diffusion, first parameters')


def test_no_two_names_or_seeds_share_a_key():
    keys = [tuple(key_data(named_key(seed, name)).tolist()) for seed, name in itertools.product((0, 1), NAMES)]
    assert len(set(keys)) == len(keys)


def test_a_name_gives_the_key_of_its_checksum():
    # CRC-32 of "diffusion" by the definition of ISO 3309, bit by bit; Python's own hash differs from run to run.
    checksum = 2**32 - 1
    for byte in b'diffusion':
        checksum ^= byte
        for _ in range(8):
            checksum = checksum >> 1 ^ 0xEDB88320 * (checksum & 1)
    expected = jax.random.fold_in(jax.random.key(7), checksum ^ 2**32 - 1)
    np.testing.assert_array_equal(key_data(named_key(7, 'diffusion')), key_data(expected))
