"""What a run tells: rows in metrics.jsonl, curves in trackers, and one line of progress.

metrics.jsonl is the truth; trackers may fail or hang without harm. Only the first process of a run writes.
Values may be device scalars, which are read when they are written.
"""

import functools
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self, TextIO

import jax
import numpy as np
import tqdm

from vqdit import files
from vqdit.training import trackers

Scalar = float | int | np.generic | jax.Array


class MetricsLog:
    """Appends rows to folder/metrics.jsonl and sends them to the trackers; use it in a `with`."""

    def __init__(self, folder: str | Path, step: int = 0, wandb_project: str | None = None):
        """`step` is the one resumed from: rows of later steps, which come again, and a torn row are dropped.

        TensorBoard files go to folder/tensorboard; a `wandb_project` adds Weights & Biases.
        Raises DataError when metrics.jsonl is broken in its middle, DiskError when it cannot be written.
        """
        self._path = Path(folder) / 'metrics.jsonl'
        self._trackers: list[trackers.Background] = []
        if jax.process_index() == 0:
            _keep_rows_up_to(step, self._path)
            board = functools.partial(trackers.TensorBoard, self._path.parent / 'tensorboard', step)
            self._trackers.append(trackers.Background('TensorBoard', board))
            if wandb_project:
                wandb = functools.partial(trackers.WandB, wandb_project, self._path.parent)
                self._trackers.append(trackers.Background('Weights & Biases', wandb))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Gives each tracker some seconds to finish."""
        for tracker in self._trackers:
            tracker.close()

    def write(self, step: int, metrics: Mapping[str, Scalar]) -> dict[str, float]:
        """Adds the row {"step", "time", ...metrics} and returns the metrics as Python numbers.

        NaN and infinity are null in the file, as JSON has none. Raises DiskError.
        """
        numbers = [np.asarray(value).item() for value in jax.device_get(list(metrics.values()))]
        values = dict(zip(metrics, numbers))
        if jax.process_index() == 0:
            row = {name: value if math.isfinite(value) else None for name, value in values.items()}
            files.append_jsonl(self._path, {'step': step, 'time': round(time.time(), 3), **row})
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            for tracker in self._trackers:
                tracker.send('scalars', step, finite)
        return values

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Shows a picture uint8 [H, W, 3] in the trackers."""
        for tracker in self._trackers:
            tracker.send('image', step, name, np.asarray(image))


class Progress:
    """One line that says where a stage stands: a bar on a terminal, else a plain line every ten seconds.

    The remaining time follows from the mean time of a step, pauses for evaluation included, compilation not.
    """

    def __init__(
        self,
        stage: str,
        total: int,
        step: int = 0,
        items_per_step: int = 1,
        unit: str = 'items',
        stream: TextIO | None = None,
        every: float | None = None,
    ):
        """Counts from `step` to `total`; `unit` names what `items_per_step` counts; `every` is in seconds."""
        self._stage, self._total, self._items_per_step, self._unit = stage, total, items_per_step, unit
        self._stream = (stream or sys.stderr) if jax.process_index() == 0 else None
        terminal = self._stream is not None and self._stream.isatty()
        self._every = every if every is not None else (0.5 if terminal else 10.0)
        self._first: tuple[float, int] | None = None
        self._last = (time.monotonic(), step)
        self._shown = -math.inf
        self._bar = None
        if terminal:
            form = '{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}'
            self._bar = tqdm.tqdm(total=total, initial=step, desc=stage, file=self._stream, bar_format=form)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def seconds_per_step(self) -> float:
        """Mean seconds of a step from the second one on, NaN before."""
        steps = self._last[1] - self._first[1] if self._first else 0
        return (self._last[0] - self._first[0]) / steps if self._first and steps else math.nan

    @property
    def items_per_second(self) -> float:
        """Mean items a second, NaN before the second step."""
        return self._items_per_step / self.seconds_per_step if self.seconds_per_step else math.nan

    def update(self, step: int, figures: Mapping[str, Scalar] | None = None) -> None:
        """Says that `step` steps are done; shows `figures` such as {'nats/token': loss, 'floor': entropy}."""
        self._last = (time.monotonic(), step)
        self._first = self._first or self._last
        if self._stream is None or (self._last[0] - self._shown < self._every and step < self._total):
            return
        self._shown = self._last[0]
        self._show(step, self._describe(step, figures or {}))

    def _show(self, step: int, text: str) -> None:
        """A terminal that has gone away ends the display, not the training."""
        try:
            if self._bar is not None:
                self._bar.n = step
                self._bar.set_postfix_str(text)
            elif self._stream is not None:
                percent = 100 * step / max(self._total, 1)
                self._stream.write(f'{self._stage} {step}/{self._total} ({percent:.0f} %), {text}\n')
                self._stream.flush()
        except (OSError, ValueError):
            self._stream, self._bar = None, None

    def _describe(self, step: int, figures: Mapping[str, Scalar]) -> str:
        values = jax.device_get(list(figures.values()))
        parts = [f'{name} {float(value):.4g}' for name, value in zip(figures, values)]
        if not math.isnan(self.seconds_per_step):
            parts.append(f'{self.items_per_second:.3g} {self._unit}/s')
            parts.insert(0, f'{_clock((self._total - step) * self.seconds_per_step)} left')
        return ', '.join(parts) or 'compiling is done'


def _keep_rows_up_to(step: int, path: Path) -> None:
    """Drops rows of later steps and a torn last row, which would spoil the next one; makes the file."""
    rows = files.read_jsonl(path) if path.exists() else []
    files.write_text(path, ''.join(json.dumps(row) + '\n' for row in rows if row['step'] <= step))


def _clock(seconds: float) -> str:
    """1:02:05 or 2:05."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f'{hours}:{minute:02d}:{second:02d}' if hours else f'{minute}:{second:02d}'
