"""The programs of later stages, compiled in a thread of their own while an earlier stage trains."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from vqdit.training.compilation import Program


class Programs:
    """Compiled steps by the names of their stages, one made after the other; used as a context."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix='compile')
        self._futures: dict[str, Future[Program]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Drops what is not begun; what is being compiled cannot be stopped, and is waited for."""
        self._thread.shutdown(cancel_futures=True)

    def prepare(self, name: str, make: Callable[[], Program]) -> None:
        """Has the program of the stage `name` made by and by."""
        self._futures[name] = self._thread.submit(make)

    def take(self, name: str, make: Callable[[], Program]) -> Program:
        """The prepared program of the stage `name`, waited for and handed out once; else what `make` makes now.

        Raises what the preparation raised.
        """
        future = self._futures.pop(name, None)
        return future.result() if future else make()
