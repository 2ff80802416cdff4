"""Strict numerics and eight virtual CPU devices for every test."""

import gc
import os
from pathlib import Path

import pytest

os.environ['JAX_PLATFORMS'] = 'cpu'

import jax

# Most of a test is compilation, and what it compiles is small: better soon than fast. XLA's older emitters take half
# the time of the new ones, as long as there are any: a flag that XLA does not know ends the process. The processes that
# tests start inherit it.
if jax.__version_info__ < (0, 11):
    os.environ.setdefault('XLA_FLAGS', '--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_disable_most_optimizations', True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file comes first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name != 'test_end_to_end.py')


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def shared_data() -> Path:
    """The folder of small real data beside the checkout; tests that need it skip without it."""
    default = Path(__file__).resolve().parents[2] / 'shared' / 'data'
    folder = Path(os.environ.get('VQDIT_DATA', default))
    if not folder.is_dir():
        pytest.skip(f'no real data at {folder}; set VQDIT_DATA to the folder that holds it')
    return folder
