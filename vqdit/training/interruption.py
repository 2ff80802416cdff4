"""Requests from outside to a running program: save now, or save and stop.

| request | signal | file in the workdir |
|---|---|---|
| save and go on | SIGUSR1 | SAVE |
| save and stop | SIGTERM, SIGHUP, SIGINT (Ctrl-C) | STOP |

A second Ctrl-C ends the process at once, which is safe: files and checkpoints appear whole or not at all.
"""

import contextlib
import enum
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Self

import jax

from vqdit.errors import Preempted
from vqdit.training.processes import any_process


class Request(enum.IntEnum):
    """What is asked for; the greater includes the smaller."""

    NONE = 0
    SAVE = 1
    STOP = 2


SIGNALS = {
    signal.SIGUSR1: Request.SAVE,
    signal.SIGTERM: Request.STOP,
    signal.SIGHUP: Request.STOP,
    signal.SIGINT: Request.STOP,
}


class StopFlag:
    """The one flag that every long loop polls, on every process equally often; use it in a `with`.

    Enter it after `jax.distributed.initialize`, whose own handler of SIGTERM it replaces. Signals that the
    shell made the program ignore (nohup) stay ignored; outside the main thread only the files are obeyed.
    """

    def __init__(self, workdir: str | Path):
        self._files = {Path(workdir) / 'SAVE': Request.SAVE, Path(workdir) / 'STOP': Request.STOP}
        self._save = False
        self._stop = ''
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Forgets files left from before and installs the handlers."""
        self._take_files()
        self._save, self._stop = False, ''
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._handle) for number in heard}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def poll(self) -> Request:
        """The greatest request of any process. SAVE is answered once, STOP stays.

        With several processes this is a collective operation that waits for the work dispatched before.
        """
        self._take_files()
        save, stop = self._save, bool(self._stop)
        if save:
            self._save = False
        save, stop = any_process(save, stop)
        if stop and not self._stop:
            self._stop = 'a request to another process'
        return Request.STOP if stop else Request.SAVE if save else Request.NONE

    def raise_if_asked_here(self) -> None:
        """Raises Preempted on STOP to this very process: for work that each process does at its own pace."""
        self._take_files()
        if self._stop:
            raise Preempted(f'stopped by {self._stop}; run the same command again to go on from here')

    def raise_if_set(self) -> None:
        """Polls, and raises Preempted on STOP; call it where everything worth keeping is saved."""
        if self.poll() is Request.STOP:
            raise Preempted(f'stopped by {self._stop}; run the same command again to go on from here')

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._ask(SIGNALS[signal.Signals(number)], signal.Signals(number).name)

    def _take_files(self) -> None:
        """Answers the request files once: they are deleted as they are read."""
        if jax.process_index() == 0:
            for path, request in self._files.items():
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                    self._ask(request, f'the file {path.name}')

    def _ask(self, request: Request, reason: str) -> None:
        if request is Request.STOP:
            self._stop = self._stop or reason
        else:
            self._save = True
