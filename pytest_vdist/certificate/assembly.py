"""report.json and what is made from it, out of what a session knew at its start and its results."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_vdist.certificate import output
from pytest_vdist.certificate.output import OutputError
from pytest_vdist.certificate.report import folder as names
from pytest_vdist.certificate.report.folder import ReportError
from pytest_vdist.certificate.report.html import write_html
from pytest_vdist.certificate.report.shards import shard_text
from pytest_vdist.certificate.report.sums import write_sums
from pytest_vdist.certificate.verdict import Circumstances, judge, shared_devices
from pytest_vdist.certificate.waivers import NOT_SELECTED, Waiver, parse_waivers, state_of

SCHEMA = "vdist-report/1"
NOT_FINISHED = "the session did not end"
BANDWIDTH = "vdist.bandwidth"
"""The property of a test under which it tells what it has measured."""
_OF_SESSION = (
    *("suite", "started", "implementation", "environment"),
    *("settings", "seeds", "capabilities", "controls"),
)


def now() -> str:
    """Return the time as reports write it: UTC, whole seconds."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day_of(session: Mapping[str, Any]) -> dt.date:
    """Return the day, of UTC, on which a session or a report of one started. Raises ReportError."""
    try:
        return dt.date.fromisoformat(session["started"][:10])
    except ValueError as error:
        raise ReportError(f"started must be a time, got {session['started']!r}: {error}") from error


def report_of(
    session: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    waivers: Sequence[Waiver],
    *,
    finished: str | None,
) -> dict[str, Any]:
    """Return the report of a session; `finished` None says that it did not end: nothing is complete.

    Waivers are judged by the day on which the session started, whenever its report is made.
    """
    left_out = {key: list(value) for key, value in session["left_out"].items()}
    if finished is None:
        left_out.setdefault("", []).append(NOT_FINISHED)
    shard = session.get("shard")
    circumstances = Circumstances(
        session["profiles"],
        left_out,
        session["void"],
        session["capabilities"].get("contradictions", ()),
        part=f"{shard_text(shard)}: merge it with the others" if shard else "",
    )
    return {
        "schema": SCHEMA,
        **{key: session[key] for key in _OF_SESSION},
        "finished": finished,
        "shard": shard,
        "waivers": waiver_entries(waivers, results, session.get("not_selected", {}), day_of(session)),
        "profiles": judge(results, circumstances),
        "profiles_not_judged": session["profiles_not_judged"],
        "bandwidth": bandwidth_of(results),
        "tests": [dict(result) for result in results],
    }


def bandwidth_of(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the tests have measured, in the order of the tests, where each rank had a device."""
    alone = [each for each in results if not shared_devices(each)]
    return [point for each in alone for point in each.get("properties", {}).get(BANDWIDTH, ())]


def waiver_entries(
    waivers: Sequence[Waiver],
    results: Sequence[Mapping[str, Any]],
    not_selected: Mapping[str, Mapping[str, Any]],
    day: dt.date,
) -> list[dict[str, Any]]:
    """Return the entries of waivers in the report, each with its state after these results on that day.

    `not_selected` are the tests that other shards or profiles have, with requirements and mode.
    """
    known = [
        *((each["test"], each, each["outcome"]) for each in results),
        *((test, each, NOT_SELECTED) for test, each in not_selected.items()),
    ]
    entries = []
    for waiver in waivers:
        outcomes = [it for test, each, it in known if waiver.covers(test, each["requirements"], each["mode"])]
        state = state_of(waiver, outcomes, day)
        entries.append({**waiver.to_json(), "state": state.value, "in_error": state.is_error})
    return entries


def without_result(session: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return results for the tests of the must-pass list that have none: they were not run."""
    known = {each["test"] for each in results}
    return [
        {
            "test": test,
            "requirements": entry["requirements"],
            "outcome": "not_run",
            "mode": entry["mode"],
            "world_sizes": [],
            "seconds": 0.0,
            "seconds_on_ranks": None,
            "reason": "not run: the session ended before it",
            "failure": None,
            "margin": None,
            "properties": {},
        }
        for test, entry in session["expected"].items()
        if test not in known
    ]


def waivers_in(folder: Path) -> tuple[Waiver, ...]:
    """Return the waivers that a folder holds a copy of."""
    path = folder / names.WAIVERS
    return parse_waivers(names.read_text(path), source=names.WAIVERS) if path.is_file() else ()


def write(folder: Path, report: dict[str, Any]) -> None:
    """Write report.json, the page and the sums. Raises OutputError where the disk does not take them."""
    output.write_text(folder / names.REPORT, names.report_text(report))
    try:
        write_html(report, folder / names.PAGE)
        write_sums(folder)
    except OSError as error:
        raise OutputError(
            f"cannot write in {folder}: {error.strerror}; {names.REPORT} is there, make room and run "
            f"`vdist report {folder}`"
        ) from error
