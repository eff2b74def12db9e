"""What an assert compared that failed in a rank; pytest explains it in the controller, with its hooks."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import FrameType

from pytest_vdist.ranks import _compat, wire

_LARGEST = 256 * 1024
"""Bytes. What is larger would be cut off when it is shown."""


@dataclass(frozen=True)
class Comparison:
    """An operator, such as "==", and both operands, as `wire` serialises them."""

    operator: str
    operands: bytes


class ComparisonNotes:
    """Keeps the last comparison that an assert has found wrong, with its place."""

    def __init__(self) -> None:
        self._last: tuple[FrameType, int, str, object, object] | None = None

    def begin_run(self) -> None:
        """Forget what there was, and have pytest's rewritten asserts tell, if they are loaded."""
        self._last = None
        _compat.tell_comparisons(self._note)

    def of(self, error: BaseException) -> Comparison | None:
        """Return what the assert compared that raised this error; None for nothing, or what cannot travel."""
        last, self._last = self._last, None
        if last is None or not isinstance(error, AssertionError):
            return None
        frame, line, operator, left, right = last
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        if traceback is None or (traceback.tb_frame, traceback.tb_lineno) != (frame, line):
            return None  # of an assert before, whose error somebody has caught
        try:
            operands = wire.dump_result((left, right))
        except wire.CannotTravelError:
            return None
        return Comparison(operator, operands) if len(operands) <= _LARGEST else None

    def _note(self, operator: str, left: object, right: object) -> None:
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - of the assert, beyond pytest's own
        while frame is not None and _compat.is_of_rewriting(frame):
            frame = frame.f_back
        if frame is not None:
            self._last = frame, frame.f_lineno, operator, left, right
