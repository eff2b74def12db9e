"""The table of a fault: how soon each call ended on each rank, kept with the report of the test."""

from __future__ import annotations

import json
from collections.abc import Iterable

from pytest_vdist.faults.waits import Ended

PROPERTY = "vdist.faults"


class Recorder:
    """Writes rows (fault, call, rank, seconds, how it ended) to the properties of a test, as they come.

    JUnit files have them; `benchmarks/fault_table.py` makes a table of one. Seconds are null for a call that
    did not end.
    """

    def __init__(self, user_properties: list[tuple[str, object]]) -> None:
        self._properties = user_properties

    def add(self, fault: str, rank: int, ended: Iterable[Ended]) -> None:
        """Add the calls of a rank."""
        rows = [[fault, each.name, rank, _seconds(each), _ending(each)] for each in ended]
        self._properties.append((PROPERTY, json.dumps(rows)))


def _seconds(ended: Ended) -> float | None:
    return None if ended.endless else round(ended.seconds, 3)


def _ending(ended: Ended) -> str:
    if ended.endless:
        return "endless"
    return ended.error.split(":", 1)[0] if ended.raised else "returned"
