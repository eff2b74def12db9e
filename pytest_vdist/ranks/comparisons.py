"""What an assert compared that failed in a rank; pytest explains it in the controller, with its hooks."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from pytest_vdist.ranks import _compat

_MOST_ITEMS = 20_000
_MOST_BYTES = 256 * 1024
_SCALARS = (bool, int, float, complex, type(None))
_TEXTS = (str, bytes)
_CONTAINERS = (list, tuple, set, frozenset)


@dataclass(frozen=True)
class Comparison:
    """An operator, such as "==", and both operands, pickled: numbers, texts, and containers of them alone.

    Objects of other classes stay in the rank: to load them changes classes of the controller, and to compare
    them runs code there that was written for a rank.
    """

    operator: str
    operands: bytes


@dataclass(frozen=True)
class _Note:
    """A comparison, how many asserts had failed before, and which frame and line it was in."""

    comparison: Comparison | None
    failed_before: int
    frame: int
    line: int


class ComparisonNotes:
    """Keeps what the last assert compared that failed in the thread of the run, as it was then."""

    def __init__(self) -> None:
        self._thread = 0
        self._failed = 0
        self._note: _Note | None = None

    def begin_run(self) -> None:
        """Have pytest's rewritten asserts tell, if they are loaded."""
        self._thread, self._failed, self._note = threading.get_ident(), 0, None
        _compat.tell_comparisons(self._note_comparison, self._count_failed)

    def of(self, error: BaseException) -> Comparison | None:
        """Return what the assert compared that raised this error; None for anything that is not clear."""
        note, traceback = self._note, error.__traceback__
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        if note is None or traceback is None or not isinstance(error, AssertionError):
            return None
        is_last = self._failed == note.failed_before + 1
        here = (id(traceback.tb_frame), traceback.tb_lineno)
        return note.comparison if is_last and here == (note.frame, note.line) else None

    def _note_comparison(self, operator: str, left: object, right: object) -> None:
        if threading.get_ident() != self._thread:
            return
        frame = sys._getframe(1)  # noqa: SLF001 - of the assert, beyond pytest's own
        while frame.f_back is not None and _compat.is_of_rewriting(frame):
            frame = frame.f_back
        several = self._note is not None and self._note.failed_before == self._failed  # "or" of comparisons
        plain = not several and _are_plain((left, right))
        comparison = Comparison(operator, pickle.dumps((left, right))) if plain else None
        self._note = _Note(comparison, self._failed, id(frame), frame.f_lineno)

    def _count_failed(self) -> None:
        self._failed += threading.get_ident() == self._thread


def _are_plain(operands: Iterable[object]) -> bool:
    """Tell whether values hold nothing but built-in ones, not too many, and no NaN, which equals no copy."""
    waiting, items, size = list(operands), 0, 0
    while waiting:
        value = waiting.pop()
        items += 1
        kind = type(value)
        if isinstance(value, _TEXTS) and kind in _TEXTS:
            size += len(value)
        elif isinstance(value, dict) and kind is dict:
            items += len(value)
            waiting += [*value.keys(), *value.values()] if items <= _MOST_ITEMS else ()
        elif isinstance(value, _CONTAINERS) and kind in _CONTAINERS:
            waiting += value if items + len(value) <= _MOST_ITEMS else [object()]
        elif kind not in _SCALARS or value != value:  # noqa: PLR0124 - NaN
            return False
        if items > _MOST_ITEMS or size > _MOST_BYTES:
            return False
    return True
