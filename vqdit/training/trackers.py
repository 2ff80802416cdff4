"""Services that draw curves, fed from threads so that they can neither stop nor delay training."""

import contextlib
import importlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)


class Background:
    """Feeds one tracker from a thread; when it fails or lags far behind, it is given up."""

    def __init__(self, name: str, open_tracker: Callable[[], Any], capacity: int = 1000):
        self._name, self._open = name, open_tracker
        self._queue: queue.Queue[tuple | None] = queue.Queue(capacity)
        self._lost = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def send(self, method: str, *arguments: Any) -> None:
        """Queues one call."""
        if not self._lost:
            try:
                self._queue.put_nowait((method, *arguments))
            except queue.Full:
                self._give_up('it does not keep up')

    def close(self, seconds: float = 10.0) -> None:
        """Waits for what is queued, but not for ever."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            tracker = self._open()
            while (call := self._queue.get()) is not None:
                getattr(tracker, call[0])(*call[1:])
            tracker.close()
        except Exception as error:
            self._give_up(f'{type(error).__name__}: {error}')

    def _give_up(self, reason: str) -> None:
        if not self._lost:
            self._lost = True
            logger.warning('%s is given up (%s); metrics.jsonl goes on', self._name, reason)


class TensorBoard:
    """Event files through tensorboardX, which needs no TensorFlow."""

    def __init__(self, folder: Path, step: int):
        writer = importlib.import_module('tensorboardX').SummaryWriter
        self._writer = writer(str(folder), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        self._writer.add_image(name, image, step, dataformats='HWC')

    def close(self) -> None:
        self._writer.close()


class WandB:
    """Weights & Biases, where it is installed."""

    def __init__(self, project: str, folder: Path):
        self._module = importlib.import_module('wandb')
        self._run = self._module.init(project=project, dir=str(folder), resume='allow')

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        self._run.log({name: self._module.Image(image)}, step=step)

    def close(self) -> None:
        self._run.finish()
