"""`vdist report`: the report of a certification that was killed, from what it had written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pytest_vdist.certificate import assembly, output
from pytest_vdist.certificate.output import SESSION, OutputError, ResultsFile, read_results
from pytest_vdist.certificate.report import folder as names
from pytest_vdist.certificate.report.folder import ReportError
from pytest_vdist.certificate.tables import FileError

_OK, _USAGE_ERROR = 0, 4


def main(folder: Path) -> int:
    """Run the command and return its exit code: 4 where the folder does not hold enough."""
    try:
        told = recover(folder)
    except (ReportError, OutputError, FileError) as error:
        print(f"vdist report: {error}", file=sys.stderr)  # noqa: T201 - what the command is for
        return _USAGE_ERROR
    print(told)  # noqa: T201
    return _OK


def recover(folder: Path) -> str:
    """Write the report of a folder in which a session has begun, and say how much of it there is.

    Tests of the must-pass list without a result become results that were not run. Raises ReportError where
    the session wrote too little, OutputError where the disk is full.
    """
    if (folder / names.REPORT).is_file() and (folder / names.SUMS).is_file():
        raise ReportError(f"{folder} has a report already: the session ended; see {folder / names.PAGE}")
    session = _session(folder)
    results = read_results(folder)
    lacking = assembly.without_result(session, results)
    finished = None if lacking else session.get("finished")
    output.write_text(folder / names.RESULTS, names.results_text(results))
    file = ResultsFile(folder)
    for result in lacking:
        file.add(result)
    file.close()
    report = assembly.report_of(session, [*results, *lacking], assembly.waivers_in(folder), finished=finished)
    assembly.write(folder, report)
    verdicts = ", ".join(f"{name}: {entry['verdict']}" for name, entry in report["profiles"].items())
    return (
        f"{len(results)} of {len(results) + len(lacking)} tests have a result; {verdicts}; "
        f"see {folder / names.PAGE}"
    )


def _session(folder: Path) -> dict[str, Any]:
    text = names.read_text(folder / SESSION)
    try:
        session = json.loads(text)
    except ValueError as error:
        raise ReportError(f"{folder / SESSION} is not valid JSON: {error}") from error
    assert isinstance(session, dict)
    return session
