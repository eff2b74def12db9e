"""The table of a fault: how soon each call ended on each survivor, kept with the report of the test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from pytest_vdist.faults.waits import Ended

PROPERTY = "vdist.faults"


class Recorder:
    """Collects rows (fault, call, rank, seconds, how it ended) and writes each to the report as it comes."""

    def __init__(self, record_property: Callable[[str, object], None]) -> None:
        self._record = record_property

    def add(self, fault: str, rank: int, ended: Iterable[Ended]) -> None:
        """Add the calls of a rank."""
        rows = [[fault, each.name, rank, _seconds(each), _ending(each)] for each in ended]
        self._record(PROPERTY, json.dumps(rows))


def recorder(record_property: Callable[[str, object], None]) -> Recorder:
    """Return a recorder for the test whose fixture `record_property` is given."""
    return Recorder(record_property)


def _seconds(ended: Ended) -> float | None:
    return None if ended.endless else round(ended.seconds, 3)


def _ending(ended: Ended) -> str:
    if ended.endless:
        return "endless"
    return ended.error.split(":", 1)[0] if ended.raised else "returned"
