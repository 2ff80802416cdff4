"""Every sampler of codes on a trained model of the built-in world: steps against quality.

    python -m benchmarks.samplers --workdir=runs/quickstart

draws the same examples with every sampler at several numbers of steps, at temperature 1 unless the row says otherwise,
and writes `benchmarks/reports/samplers.{json,md}` after every row, and `samplers.svg`. Rows that the JSON file has
already are not made again. The bits are those of what was drawn, by the model's own likelihood bound: fewer are more
typical, not better. The first `name` of a row's settings is the sampler's in `config.diffusion.sampler`.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks.charts import line_chart
from vqdit.command import run
from vqdit.diffusion.clock import Task
from vqdit.evaluation.directions import make_scorer, read_examples
from vqdit.evaluation.likelihood import LikelihoodBound, encode_all
from vqdit.files import read_json, write_json, write_text
from vqdit.training.factory import build_process
from vqdit.training.host import keep_compiled_programs, prepare_host
from vqdit.training.pipeline import load_generator

REPORTS = Path(__file__).parent / 'reports'
TASKS = ('audio->image', 'image->text')
STEPS = (4, 16)
COLUMNS = ('sampler', 'steps', 'task', 'accuracy', 'distance', 'bits', 'seconds')
FORMATS = {'accuracy': '.3f', 'distance': '.3f', 'bits': '.2f', 'seconds': '.1f'}

flags.DEFINE_string('workdir', None, 'folder of a trained quickstart', required=True)
flags.DEFINE_integer('examples', 256, 'drawn for every row')

SAMPLERS: dict[str, dict[str, Any]] = {
    'ordered, random': {'name': 'ordered'},
    'ordered, random, temperature 0.4': {'name': 'ordered', 'temperature': 0.4},
    'ordered, entropy': {'name': 'ordered', 'order': 'entropy'},
    'ordered, margin': {'name': 'ordered', 'order': 'margin'},
    'ordered, purity': {'name': 'ordered', 'order': 'purity'},
    'ordered, confidence': {'name': 'ordered', 'order': 'confidence'},
    'ancestral': {'name': 'ancestral'},
    'tau-leaping': {'name': 'tau_leaping'},
    'remasking, capped': {'name': 'remasking', 'amount': 'capped'},
    'remasking, loop': {'name': 'remasking', 'times': {'name': 'looped', 'level': 0.1, 'share': 0.5},
                        'amount': {'name': 'during', 'start': 0.1, 'stop': 0.1, 'amount': 'capped'}},
    'entropy-bounded, 0.1': {'name': 'entropy_bounded', 'bound': 0.1},
    'first-hitting': {'name': 'first_hitting'},
}
"""Samplers with `steps` are drawn at each of STEPS; the others take as many evaluations as they need."""
ADAPTIVE = ('entropy_bounded', 'first_hitting')


def cases() -> Iterator[tuple[str, int | None, dict[str, Any]]]:
    """Label, steps and the settings of every sampler."""
    for label, settings in SAMPLERS.items():
        if settings['name'] in ADAPTIVE:
            yield label, None, settings
        else:
            yield from ((label, steps, settings | {'steps': steps}) for steps in STEPS)


def measure(workdir: str, settings: Mapping[str, Any], examples: int) -> list[dict[str, Any]]:
    """Accuracy of the determined attributes, distance of the undetermined one, bits and seconds, for each of TASKS."""
    generator, config = load_generator(workdir, sampler={'temperature': 1.0} | dict(settings))
    config.evaluation.examples = examples
    scorer = make_scorer(config)
    likelihood = LikelihoodBound(generator, build_process(config, generator.layout, generator.tokenizers))
    rows = []
    for task in map(Task.parse, TASKS):
        real = read_examples(config, task)
        codes = encode_all(generator, task, real)
        generator.generate_codes(task, codes[:generator.batch_size])  # compiles
        started = time.perf_counter()
        drawn = generator.generate_codes(task, codes)
        seconds = time.perf_counter() - started
        generated = {name: list(generator.tokenizers[name].decode(drawn[:, generator.layout.slice(name)]))
                     for name in task.generated}
        found = {row.metric: row.value for row in scorer.score(task, real, generated)}
        distance = next(value for name, value in found.items() if name.endswith('distance'))
        bits = likelihood.of(drawn, task, seed=0).mean() / np.log(2)
        rows.append({'task': str(task), 'accuracy': found['attribute accuracy'], 'distance': distance,
                     'bits': float(bits), 'seconds': seconds})
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of all rows."""
    cells = [[_cell(row, name) for name in COLUMNS] for row in rows]
    table = '\n'.join(f'| {" | ".join(line)} |' for line in [COLUMNS, ('---',) * len(COLUMNS), *cells])
    return f'# Samplers on the quickstart\n\n{__doc__.strip() if __doc__ else ""}\n\n![](samplers.svg)\n\n{table}\n'


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    return '' if value is None else format(value, FORMATS.get(name, ''))


def chart(rows: list[dict[str, Any]]) -> str:
    """Steps against accuracy and distance, a panel for each task and measure, a line for each sampler."""
    panels = {}
    for task in TASKS:
        for measured in ('accuracy', 'distance'):
            lines: dict[str, list[tuple[float, float]]] = {}
            for row in rows:
                if row['task'] == task and row['steps']:
                    lines.setdefault(row['sampler'], []).append((row['steps'], row[measured]))
            panels[f'{task}: {measured}'] = lines
    return line_chart(panels, 'steps')


def main() -> None:
    prepare_host(cpu_devices=1)
    keep_compiled_programs()
    path = REPORTS / 'samplers.json'
    rows = read_json(path) if path.exists() else []
    known = {(row['sampler'], row['steps']) for row in rows}
    for label, steps, settings in cases():
        if (label, steps) in known:
            continue
        new = [{'sampler': label, 'steps': steps} | row
               for row in measure(flags.FLAGS.workdir, settings, flags.FLAGS.examples)]
        rows += new
        write_json(path, rows)
        write_text(REPORTS / 'samplers.md', markdown(rows))
        write_text(REPORTS / 'samplers.svg', chart(rows))
        sys.stdout.write('\n'.join(markdown(new).splitlines()[-len(new):]) + '\n')
        sys.stdout.flush()


if __name__ == '__main__':
    run(main)
