"""Ends a process that no longer moves, for example because another one died in a collective operation."""

import faulthandler
import os
import threading
import time
from typing import Self

from vqdit.errors import LostPeerError


class Watchdog:
    """Ends the process with exit code 7 and the stack of every thread unless it is armed again in time.

    Use it in a `with` and call `arm` once a step. A thread watches the deadline; code that never releases
    Python's lock would escape it, but collective operations and file access do release it.
    """

    def __init__(self, seconds: float):
        """`seconds` is the time that one step may take."""
        self._seconds = seconds
        self._armed, self._allowed, self._doing = 0.0, 0.0, ''
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name='watchdog', daemon=True)

    def __enter__(self) -> Self:
        self.arm('starting')
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        self._thread.join()

    def arm(self, doing: str, factor: float = 1.0) -> None:
        """Gives the next piece of work, named `doing`, `factor` times the seconds, as compilation needs."""
        self._armed, self._allowed, self._doing = time.monotonic(), factor * self._seconds, doing

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._seconds / 4)):
            if time.monotonic() - self._armed > self._allowed:
                self._end()

    def _end(self) -> None:
        """Writes past `logging`, whose lock a stuck thread may hold."""
        message = f'no progress for {self._allowed:g} s in {self._doing}; the stack of every thread follows\n'
        os.write(2, message.encode())
        faulthandler.dump_traceback(file=2, all_threads=True)
        os._exit(LostPeerError.exit_code)
