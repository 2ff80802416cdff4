"""The report of a run: one table of every direction, as JSON for programs and as Markdown with things to look at."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vqdit import __version__
from vqdit.data.preprocess import read_formats
from vqdit.diffusion.clock import Task
from vqdit.evaluation.directions import make_scorer, measure_directions, measure_tokenizers
from vqdit.evaluation.rows import Row
from vqdit.evaluation.tokenizers import measure_workdir
from vqdit.files import write_json, write_text
from vqdit.generation.outputs import write_samples
from vqdit.training.image_factory import is_image_model, tokenizers_alone
from vqdit.training.pipeline import load_generator
from vqdit.training.workdir import load_config

HEADER = ('task', 'metric', 'value', 'ceiling', 'unit', 'count')


def evaluate(workdir: str | Path) -> list[Row]:
    """Measures a trained workdir, writes report.json, report.md and report/, prints the table; returns its rows.

    There are none of an image DiT, whose measures need a judge of natural images, nor of tokenizers alone, which are
    measured as `measure_workdir` does.
    """
    workdir = Path(workdir)
    config = load_config(workdir)
    if is_image_model(config):
        return []
    if tokenizers_alone(config):
        for line in measure_workdir(workdir):
            sys.stdout.write(f'{line}\n')
        return []
    generator, config = load_generator(workdir)
    scorer = make_scorer(config)
    rows = measure_tokenizers(generator, config, scorer)
    directions = measure_directions(generator, config, scorer)
    rows += [row for direction in directions for row in direction.rows]
    for direction in directions:
        folder, about = workdir / 'report' / slug(direction.task), {'seed': config.evaluation.seed}
        rate = read_formats(config.data).audio.rate
        write_samples(folder, direction.task, direction.given, direction.generated, rate, about)
    settings = {'evaluation': config.evaluation.to_dict(), 'sampler': config.diffusion.sampler.to_dict()}
    write_json(workdir / 'report.json', [asdict(row) for row in rows])
    write_text(workdir / 'report.md', markdown(rows, [direction.task for direction in directions], settings))
    sys.stdout.write(f'{table(rows)}\nreport: {workdir}/report.md\n')
    return rows


def slug(task: Task) -> str:
    """A file name for a task: names of modalities and hyphens only."""
    return '-'.join([*task.given, 'to', *task.generated])


def table(rows: Sequence[Row]) -> str:
    """The rows as an aligned Markdown table."""
    cells = [HEADER, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [' | '.join(cell.ljust(width) for cell, width in zip(row, widths)) for row in cells]
    lines.insert(1, ' | '.join('-' * width for width in widths))
    return '\n'.join(f'| {line} |' for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    ceiling = '' if row.ceiling is None else f'{row.ceiling:.4f}'
    margin = '' if row.margin is None else f' ± {row.margin:.4f}'
    return row.task, row.metric, f'{row.value:.4f}{margin}', ceiling, row.unit, str(row.count)


def markdown(rows: Sequence[Row], tasks: Sequence[Task], settings: dict[str, dict]) -> str:
    """The report: the table, what its columns mean, and the first samples of every direction."""
    parts = [
        '# Evaluation',
        table(rows),
        'Fractions, not per cent. The ceiling is what a perfect model would show by the same measure: the reader or '
        'judge on real data, the known entropy, or, for a distance, its expected noise at this count. Behind ± stands '
        'half of the 95 % confidence interval.',
        '\n'.join(f'- {part}: {_line(values)}' for part, values in settings.items()),
        *(f'## {task}\n\n![{task}](report/{slug(task)}/grid.png)' for task in tasks),
        f'The files are in report/. Made by vqdit {__version__}.',
    ]
    return '\n\n'.join(parts) + '\n'


def _line(values: dict) -> str:
    return ', '.join(f'{key}={value}' for key, value in values.items())
