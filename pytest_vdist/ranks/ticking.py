"""Saying now and then how a wait goes on, also where the waiting itself can't be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def every(seconds: float, tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` from a thread each time that so many seconds have passed while the context is open.

    No call is under way any more when the context is left.
    """
    left = threading.Event()

    def tick() -> None:
        while not left.wait(seconds):
            tell()

    thread = threading.Thread(target=tick, name="vdist-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()
