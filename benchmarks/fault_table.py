"""How soon calls end on the ranks that survive a fault: a table of a JUnit file of the chapter `faults`.

    pytest --vdist-backend=cpu suites/faults --junitxml=faults.xml
    python benchmarks/fault_table.py faults.xml

Each cell has the seconds to the end of the call on each rank, in the order of ranks. `=` stands after a call
that returned, `!` after one with which the process ended.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as ET

PROPERTY = "vdist.faults"
Row = tuple[str, str, int, float | None, str]


def rows_of(path: str) -> list[Row]:
    """Return the rows of every test case of the file."""
    found = ET.parse(path).iterfind(f".//property[@name='{PROPERTY}']")
    return [tuple(row) for each in found for row in json.loads(each.get("value", "[]"))]


def cell(rows: Iterable[Row]) -> str:
    """Return the seconds of each rank, with how the call ended."""
    return " ".join(_text(seconds, ending) for *_, seconds, ending in sorted(rows, key=lambda row: row[2]))


def _text(seconds: float | None, ending: str) -> str:
    if seconds is None:
        return "endless"
    if ending == "returned":
        return f"{seconds:.2f}="
    died = ending.startswith(("killed by", "its process"))
    return f"{seconds:.2f}{'!' if died else ''}"


def table(rows: Sequence[Row]) -> str:
    """Return the table as Markdown: calls down, faults across."""
    faults = list(dict.fromkeys(fault for fault, *_ in rows))
    calls = list(dict.fromkeys(call for _, call, *_ in rows))
    lines = [["call", *faults], ["---"] * (1 + len(faults))]
    for call in calls:
        by_fault = [cell(row for row in rows if row[:2] == (fault, call)) for fault in faults]
        lines.append([call, *by_fault])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    rows = rows_of(sys.argv[1])
    if not rows:
        raise SystemExit(f"{sys.argv[1]} has no property {PROPERTY}: it is of no run of suites/faults")
    print(table(rows))


if __name__ == "__main__":
    main()
