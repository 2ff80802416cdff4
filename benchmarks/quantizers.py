"""Every quantizer with every gradient estimator on Fashion-MNIST: what 49 positions of 10 bits keep of a picture.

    python benchmarks/quantizers.py --data_root=FOLDER

trains the same small autoencoder (28x28 -> 7x7 positions) for the same 500 steps around each of them, half a minute a
row on 2 CPU cores, and writes `benchmarks/reports/quantizers.{json,md}` after every row. Rows that the JSON file has
already are not made again. Time is that of all threads together, without compilation, so that other programs matter
little.
"""

import itertools
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from vqdit.command import run
from vqdit.files import read_json, write_json, write_text
from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.frozen import LearnedTokenizer
from vqdit.tokenizers.pixels import Pixels
from vqdit.tokenizers.quantizers import build_quantizer
from vqdit.tokenizers.quantizers.bounds import BOUNDS
from vqdit.tokenizers.quantizers.estimators import ESTIMATORS
from vqdit.training.defaults import optimization
from vqdit.training.host import prepare_host
from vqdit.training.trial import measure, read_pictures, shuffled, training

REPORTS = Path(__file__).parent / 'reports'
SPLITS, GRID = (('train', 20_000), ('test', 10_000)), (7, 7)
COLUMNS = ('quantizer', 'option', 'psnr', 'usage', 'perplexity', 'bits', 'seconds')
FORMATS = {'psnr': '.2f', 'usage': '.1%', 'perplexity': '.1f', 'bits': '.0f', 'seconds': '.0f'}

flags.DEFINE_string('data_root', None, 'folder of TFDS sets with fashion_mnist', required=True)
flags.DEFINE_list('only', [], 'names of quantizers; all when empty')

VECTOR = {'name': 'vector', 'num_codes': 1024}
HALF = {'name': 'vector', 'num_codes': 32, 'dimension': 4}
CHOSEN: dict[str, dict[str, Any]] = {
    'vector': VECTOR, 'vector, gradient codebook': VECTOR | {'codebook': 'gradient'},
    'sim_vector': {'name': 'sim_vector', 'num_codes': 1024}, 'lookup_free': {'name': 'lookup_free', 'bits': 10},
    'binary_spherical': {'name': 'binary_spherical', 'bits': 10},
    'residual, 2 levels': {'name': 'residual', 'copies': 2, 'quantizer': HALF | {'metric': 'euclidean'}},
    'multi_scale, 4 scales': {'name': 'multi_scale', 'grids': ((1, 1), (2, 2), (4, 4), GRID),
                              'quantizer': VECTOR | {'metric': 'euclidean'}}}
"""Quantizers whose estimator is chosen."""
SCALARS = {'name': 'finite_scalar', 'scalar_levels': (8, 5, 5, 5)}
OWN: dict[str, dict[str, Any]] = {
    'index_backprop': {'name': 'index_backprop'}, 'gumbel': {'name': 'gumbel'},
    'random_projection': {'name': 'random_projection', 'num_codes': 1024, 'dimension': 16},
    'grouped, 2 finite_scalar': {'name': 'grouped', 'copies': 2,
                                 'quantizer': {'name': 'finite_scalar', 'scalar_levels': (8, 4)}},
    'multi_head, 2 heads': {'name': 'multi_head', 'heads': 2, 'quantizer': HALF},
    'projected finite_scalar': {'name': 'projected', 'dimension': 16, 'quantizer': SCALARS},
    'gaussian': {'name': 'gaussian'}, 'identity': {'name': 'identity'}}
"""Quantizers with a gradient of their own."""


def cases() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Quantizer, option, and the quantizer's config of every row; the defaults first."""
    for bound in BOUNDS:
        yield 'finite_scalar', bound, SCALARS | {'bound': bound}
    estimators = [name for name in ESTIMATORS if name != 'code_only']
    for estimator, (name, options) in itertools.product(estimators, CHOSEN.items()):
        yield name, estimator, options | {'estimator': estimator}
    for name, options in OWN.items():
        yield name, '', options


def one_row(options: Mapping[str, Any], train: np.ndarray, test: np.ndarray) -> dict[str, float | None]:
    """Trains and measures one tokenizer."""
    autoencoder = Autoencoder(build_quantizer(options), 1, (64,), 1, (4, 4))
    tokenizer = LearnedTokenizer(Pixels((28, 28), 1), autoencoder)
    section = optimization(500, 64, 3e-3)
    section.ema_decay = 0.99
    steps = training(tokenizer, shuffled(train, section.batch_size), section)
    next(steps)  # compiles
    started = time.process_time()
    variables = deque(steps, maxlen=1).pop()
    figures = measure(tokenizer, variables, test)
    return figures._asdict() | {'seconds': time.process_time() - started}


def markdown(rows: list[dict[str, Any]]) -> str:
    cells = [[_cell(row, name) for name in COLUMNS] for row in rows]
    lines = [COLUMNS, ('---',) * len(COLUMNS), *cells]
    table = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
    return f'# Quantizers on Fashion-MNIST\n\n{__doc__.strip() if __doc__ else ""}\n\n{table}\n'


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    return '' if value is None else format(value, FORMATS.get(name, ''))


def main() -> None:
    prepare_host(cpu_devices=1)
    root, only = flags.FLAGS.data_root, flags.FLAGS.only
    path = REPORTS / 'quantizers.json'
    rows = read_json(path) if path.exists() else []
    train, test = (read_pictures('fashion_mnist', root, split, count) for split, count in SPLITS)
    for name, option, options in cases():
        known = {(row['quantizer'], row['option']) for row in rows}
        if (name, option) in known or (only and name not in only):
            continue
        rows.append({'quantizer': name, 'option': option} | one_row(options, train, test))
        write_json(path, rows)
        write_text(REPORTS / 'quantizers.md', markdown(rows))
        sys.stdout.write(f'{markdown(rows[-1:]).splitlines()[-1]}\n')
        sys.stdout.flush()


if __name__ == '__main__':
    run(main)
