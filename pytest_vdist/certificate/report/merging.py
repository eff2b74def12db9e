"""Several certifications of one device, made by jobs of their own, as one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_vdist.certificate import assembly, output
from pytest_vdist.certificate.outcomes import Outcome
from pytest_vdist.certificate.output import SESSION
from pytest_vdist.certificate.report import folder as names
from pytest_vdist.certificate.report import junit
from pytest_vdist.certificate.report.folder import Report, ReportError
from pytest_vdist.certificate.report.schema import schema_problems
from pytest_vdist.certificate.report.shards import require_whole
from pytest_vdist.certificate.report.sums import sums_problems
from pytest_vdist.certificate.verdict import shared_devices

_WORSE = {outcome.value: place for place, outcome in enumerate(Outcome)}
_EQUAL = ("suite.version", "suite.spec_version", "suite.requirements_digest", "suite.digest")
_DEVICE = ("implementation.name", "implementation.backend", "environment.torch", "capabilities.declared")


def merge(out: Path, folders: Sequence[Path]) -> Report:
    """Write one folder out of several and return its report; the verdict is judged anew.

    A test that several have counts with its worst outcome. A profile is complete if it is in one of them.
    Raises ReportError for folders that are changed or of different suites, devices, manifests or waivers, and
    for shards that do not make up a whole.
    """
    if len(folders) < 2:
        raise ReportError(f"at least two folders are merged, got {len(folders)}")
    output.check(out)
    reports = [_whole(folder) for folder in folders]
    for path in (*_EQUAL, *_DEVICE):
        _require_equal(path, [_at(report, path) for report in reports], folders)
    for name in (names.MANIFEST, names.WAIVERS):
        texts = [_text(folder / name) for folder in folders]
        _require_equal(name, texts, folders)
    sessions = [_session(folder) for folder in folders]
    require_whole(folders, sessions)
    session = merged_session(sessions)
    results = merged_results([report["tests"] for report in reports])
    finished = (
        None
        if any(report["finished"] is None for report in reports)
        else max(report["finished"] for report in reports)
    )
    session["finished"] = finished
    junit_text = junit.joined([folder / names.JUNIT for folder in folders])
    output.prepare(out)
    waivers = _text(folders[0] / names.WAIVERS)
    if waivers:
        output.write_text(out / names.WAIVERS, waivers)
    output.write_text(out / names.MANIFEST, _text(folders[0] / names.MANIFEST))
    ids = dict.fromkeys(id_ for f in folders for id_ in names.must_pass_ids(_text(f / names.MUST_PASS)))
    output.write_text(out / names.MUST_PASS, "".join(f"{id_}\n" for id_ in ids))
    output.write_text(out / names.COMMAND, "".join(_text(folder / names.COMMAND) for folder in folders))
    output.write_text(out / names.JUNIT, junit_text)
    output.write_json(out / SESSION, session)
    output.write_text(out / names.RESULTS, names.results_text(results))
    report = assembly.report_of(session, results, assembly.waivers_in(out), finished=finished)
    assembly.write(out, report)
    return report


def merged_results(parts: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the results of all parts, the worse one of those that there are of the same test.

    Of those that are as bad it is one whose ranks had a device each, if there is one.
    """
    found: dict[str, dict[str, Any]] = {}
    for result in (each for part in parts for each in part):
        known = found.get(result["test"])
        if known is None or _weight(result) > _weight(known):
            found[result["test"]] = result
    return list(found.values())


def _weight(result: Mapping[str, Any]) -> tuple[int, bool]:
    return _WORSE[result["outcome"]], not shared_devices(result)


def merged_session(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one session for all: what any of them judges is judged, what all of them lack is lacking."""
    profiles = list(dict.fromkeys(name for each in sessions for name in each["profiles"]))
    not_judged = {name: why for each in sessions for name, why in each["profiles_not_judged"].items()}
    expected = {test: entry for each in sessions for test, entry in each["expected"].items()}
    capabilities = dict(sessions[0]["capabilities"])
    capabilities["contradictions"] = _union(
        each["capabilities"].get("contradictions", ()) for each in sessions
    )
    return {
        **sessions[0],
        "implementation": {
            **sessions[0]["implementation"],
            "device_names": _union(each["implementation"]["device_names"] for each in sessions),
        },
        "started": min(each["started"] for each in sessions),
        "settings": _settings([each["settings"] for each in sessions]),
        "capabilities": capabilities,
        "controls": _controls([each["controls"] for each in sessions]),
        "profiles": profiles,
        "profiles_not_judged": {name: why for name, why in not_judged.items() if name not in profiles},
        "left_out": _left_out(sessions, profiles),
        "void": _union(each["void"] for each in sessions),
        "shard": None,
        "expected": expected,
        "not_selected": {
            test: entry
            for each in sessions
            for test, entry in each.get("not_selected", {}).items()
            if test not in expected
        },
    }


def _left_out(sessions: Sequence[Mapping[str, Any]], profiles: Sequence[str]) -> dict[str, list[str]]:
    found = {}
    for profile in profiles:
        judging = [each["left_out"] for each in sessions if profile in each["profiles"]]
        reasons = [[*left.get("", ()), *left.get(profile, ())] for left in judging]
        if all(reasons):
            found[profile] = _union(reasons)
    return found


def _settings(parts: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for setting in (each for part in parts for each in part):
        by_name.setdefault(setting["name"], []).append(setting)
    return [
        {
            "name": name,
            "value": entries[0]["value"]
            if all(entry["value"] == entries[0]["value"] for entry in entries)
            else "; ".join(_union([str(entry["value"])] for entry in entries)),
            "source": "; ".join(_union([entry["source"]] for entry in entries)),
        }
        for name, entries in by_name.items()
    ]


def _controls(parts: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for control in (each for part in parts for each in part):
        known = found.get(control["name"])
        if known is None or (known["caught"] and not control["caught"]):
            found[control["name"]] = dict(control)
    return list(found.values())


def _union(parts: Any) -> list[str]:
    return list(dict.fromkeys(text for part in parts for text in part))


def _whole(folder: Path) -> Report:
    problems = sums_problems(folder) if folder.is_dir() else [f"{folder} is no folder"]
    report = {} if problems else names.read_report(folder)
    problems = problems or schema_problems(report)
    if problems:
        raise ReportError(
            f"{folder} cannot be merged: {'; '.join(problems)}; if its session was killed, "
            f"`vdist report {folder}` makes its report"
        )
    return report


def _session(folder: Path) -> dict[str, Any]:
    session: dict[str, Any] = json.loads(names.read_text(folder / SESSION))
    return session


def _text(path: Path) -> str:
    return names.read_text(path) if path.is_file() else ""


def _at(report: Report, path: str) -> Any:
    value: Any = report
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]


def _require_equal(what: str, values: Sequence[Any], folders: Sequence[Path]) -> None:
    for value, folder in zip(values[1:], folders[1:], strict=True):
        if value != values[0]:
            shown = "" if "\n" in str(value) else f": {values[0]!r} and {value!r}"
            if isinstance(value, dict) and isinstance(values[0], dict):
                shown = f": {', '.join(_differing(values[0], value))}"
            raise ReportError(
                f"{folders[0]} and {folder} differ in {what}{shown}; merge what was run of one suite on one "
                f"kind of device, with the same manifest and waivers"
            )
