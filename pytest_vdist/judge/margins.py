"""How close to their bounds the results came, for whoever wants to know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_NOTED: ContextVar[list[float] | None] = ContextVar("_NOTED", default=None)


@contextmanager
def noted_margins() -> Iterator[list[float]]:
    """Collect the margins, error / bound, of all bounded comparisons that are made within."""
    found: list[float] = []
    token = _NOTED.set(found)
    try:
        yield found
    finally:
        _NOTED.reset(token)


def note(margin: float) -> None:
    """Hand over the margin of one comparison."""
    found = _NOTED.get()
    if found is not None:
        found.append(margin)
