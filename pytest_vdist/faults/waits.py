"""Calls that may never return: made in threads of their own, and what became of them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

# Any of these is an error of communication that a caller can tell from an error in a program.
TYPED_ERRORS = frozenset({"RuntimeError", "TimeoutError", "ConnectionError"})


@dataclass(frozen=True)
class Ended:
    """How one call ended on one rank, and after how many seconds; infinity where it had not ended.

    `error` is the exception's type and text, "" where the call returned `value`; `kinds` are the names of its
    classes, bases included.
    """

    name: str
    seconds: float
    value: Any = None
    error: str = ""
    kinds: tuple[str, ...] = ()

    @property
    def endless(self) -> bool:
        return math.isinf(self.seconds)

    @property
    def raised(self) -> bool:
        return bool(self.kinds)


def attempt(name: str, call: Callable[[], Any]) -> Ended:
    """Make a call and return how it ended."""
    start = time.monotonic()
    try:
        value = call()
    except Exception as error:
        seconds = time.monotonic() - start
        kinds = tuple(cls.__name__ for cls in type(error).__mro__)
        return Ended(name, seconds, error=f"{type(error).__name__}: {error}", kinds=kinds)
    return Ended(name, time.monotonic() - start, value)


def attempt_together(
    calls: Sequence[tuple[str, Callable[[], Any]]], device: torch.device, patience: float
) -> list[Ended]:
    """Make all calls at the same time and return how each ended within `patience` seconds.

    A call that has not ended then keeps its thread, so the process must not be used for long after that.
    """
    ended: dict[int, Ended] = {}

    def run(number: int, name: str, call: Callable[[], Any]) -> None:
        if device.type != "cpu":
            torch.get_device_module(device).set_device(device)  # each thread has a current device of its own
        ended[number] = attempt(name, call)

    threads = [
        threading.Thread(target=run, args=(number, name, call), daemon=True)
        for number, (name, call) in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [ended.get(number, Ended(name, math.inf)) for number, (name, _) in enumerate(calls)]


@dataclass(frozen=True)
class Limit:
    """A limit in seconds, and what may pass beyond it until a caller hears of it."""

    seconds: float
    slack: float

    @property
    def earliest(self) -> float:
        """When a call may end by the limit at the earliest: clocks of threads differ a little."""
        return 0.95 * self.seconds

    @property
    def latest(self) -> float:
        return self.seconds + self.slack
