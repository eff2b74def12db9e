"""`vdist report`: the report of a certification that was killed, from what it had written."""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_vdist.certificate import assembly, output
from pytest_vdist.certificate.output import SESSION, OutputError, ResultsFile, read_results
from pytest_vdist.certificate.report import folder as names
from pytest_vdist.certificate.report import junit
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
    the session wrote too little or something else, OutputError where the disk is full.
    """
    if (folder / names.REPORT).is_file() and (folder / names.SUMS).is_file():
        raise ReportError(f"{folder} has a report already: the session ended; see {folder / names.PAGE}")
    session = names.parse_report(names.read_text(folder / SESSION), source=str(folder / SESSION))
    results = read_results(folder)
    try:
        lacking = assembly.without_result(session, results)
        finished = None if lacking else session.get("finished")
        waivers = assembly.waivers_in(folder)
        report = assembly.report_of(session, [*results, *lacking], waivers, finished=finished)
        junit_text = junit.text_of([*results, *lacking])
    except (KeyError, TypeError, AttributeError) as error:
        raise ReportError(
            f"{folder / SESSION} is not what --vdist-certify writes: {type(error).__name__}: {error}; "
            "nothing was changed"
        ) from error
    output.write_text(folder / names.RESULTS, names.results_text(results))
    file = ResultsFile(folder)
    for result in lacking:
        file.add(result)
    file.close()
    if not junit.is_whole(folder / names.JUNIT):  # pytest writes it last
        output.write_text(folder / names.JUNIT, junit_text)
    assembly.write(folder, report)
    verdicts = ", ".join(f"{name}: {entry['verdict']}" for name, entry in report["profiles"].items())
    return (
        f"{len(results)} of {len(results) + len(lacking)} tests have a result; {verdicts}; "
        f"see {folder / names.PAGE}"
    )
