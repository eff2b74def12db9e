"""Checking the folder of a certificate, offline: what speaks against it, in plain words."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from pytest_vdist.certificate import assembly, requirements
from pytest_vdist.certificate.controls import CONTROLS
from pytest_vdist.certificate.manifest import parse_manifest
from pytest_vdist.certificate.output import SESSION
from pytest_vdist.certificate.report import folder as names
from pytest_vdist.certificate.report import signing
from pytest_vdist.certificate.report.folder import Report, ReportError
from pytest_vdist.certificate.report.html import html_text
from pytest_vdist.certificate.report.schema import schema_problems
from pytest_vdist.certificate.report.shards import shard_text
from pytest_vdist.certificate.report.sums import sums_problems
from pytest_vdist.certificate.suites import suites_digest
from pytest_vdist.certificate.tables import FileError

OK, FAILED, INCOMPLETE = 0, 1, 10
_PASSING = ("conformant", "conformant_with_waivers", "partial")


def verify(folder: Path, public_key: Path | None = None) -> tuple[int, list[str]]:
    """Return an exit code and the findings, each a sentence.

    0: the folder is whole, agrees with itself, and every profile is conformant, with waivers or in part;
    10: the same, but something was not tested; 1: anything else.
    """
    if not folder.is_dir():
        return FAILED, [f"{folder} is no folder; name one that --vdist-certify wrote"]
    problems = sums_problems(folder)
    problems += [f"{name} is missing" for name in names.REQUIRED if not (folder / name).is_file()]
    problems += signing.signature_problems(folder, public_key)
    try:
        report = names.read_report(folder)
        problems += [f"{names.REPORT}: {problem}" for problem in schema_problems(report)]
        if not problems:
            problems = [found for check in _CHECKS for found in check(folder, report)]
    except (ReportError, FileError) as error:
        return FAILED, [*problems, str(error)]
    if problems:
        return FAILED, list(dict.fromkeys(problems))
    return _of_verdicts(report)


def _of_verdicts(report: Report) -> tuple[int, list[str]]:
    verdicts = {name: entry["verdict"] for name, entry in report["profiles"].items()}
    told = []
    for name, entry in report["profiles"].items():
        told.append(f"profile {name}: {entry['verdict'].replace('_', ' ')}")
        told += [f"  {reason}" for reason in entry["incomplete_because"]]
    if any(verdict in {"non_conformant", "error"} for verdict in verdicts.values()):
        return FAILED, told
    if report.get("shard"):
        told.append(f"a part only, {shard_text(report['shard'])}: `vdist merge` joins it with the others")
    if not verdicts or any(verdict not in _PASSING for verdict in verdicts.values()):
        return INCOMPLETE, [*told, *([] if verdicts else ["no profile was judged"])]
    return OK, told


def _completeness(folder: Path, report: Report) -> Iterable[str]:
    expected = names.must_pass_ids(names.read_text(folder / names.MUST_PASS))
    counted = Counter(test["test"] for test in report["tests"])
    yield from _some("has no result", [test for test in expected if test not in counted])
    yield from _some(f"is not in {names.MUST_PASS}", counted.keys() - set(expected))
    yield from _some("has several results", [test for test, count in counted.items() if count > 1])
    yield from _some(f"is in {names.MUST_PASS} twice", [t for t, n in Counter(expected).items() if n > 1])
    if not expected:
        yield f"{names.MUST_PASS} is empty: a certificate of nothing"
    yield from _some(
        f"has other requirements or another mode in {SESSION}",
        [
            each["test"]
            for each in report["tests"]
            if _session(folder)["expected"].get(each["test"], {})
            != {"requirements": each["requirements"], "mode": each["mode"]}
        ],
    )
    written = names.results_of(names.read_text(folder / names.RESULTS), source=names.RESULTS)
    if written != report["tests"]:
        yield f"{names.RESULTS} and the tests in {names.REPORT} differ"


def _some(what: str, tests: Iterable[str], most: int = 5) -> list[str]:
    chosen = sorted(tests)
    more = [f"… and {len(chosen) - most} more {what}"] if len(chosen) > most else []
    return [*(f"{test} {what}" for test in chosen[:most]), *more]


def _versions(_: Path, report: Report) -> Iterable[str]:
    suite, own = report["suite"], metadata.version("pytest-vdist")
    if suite["version"] != own:
        yield (
            f"the report is of suite version {suite['version']}, this is {own}; verify it with the version "
            f"that wrote it: pip install pytest-vdist=={suite['version']}"
        )
    elif suite["spec_version"] != requirements.registry().spec_version:
        yield (
            f"specification {suite['spec_version']} is not known to suite version {own}, "
            f"which has {requirements.registry().spec_version}"
        )
    elif suite["requirements_digest"] != hashlib.sha256(requirements.REGISTRY_FILE.read_bytes()).hexdigest():
        yield f"the requirements are not those of suite version {own}: their digest differs"
    elif suite.get("digest") != suites_digest():
        yield f"the tests that ran are not those of suite version {own}: the digest of the suites differs"


def _verdicts(folder: Path, report: Report) -> Iterable[str]:
    """Judge the results once more and compare; a report of another suite version cannot be judged here."""
    try:
        session = _session(folder)
        again = assembly.report_of(
            session, report["tests"], assembly.waivers_in(folder), finished=session["finished"]
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{SESSION} cannot be used to judge the results again: {type(error).__name__}: {error}"
        return
    for key in sorted({*again, *report}):
        if again.get(key) == report.get(key):
            continue
        if key == "profiles":
            yield from _changed_profiles(report["profiles"], again["profiles"])
        else:
            yield f"{key} in {names.REPORT} is not what the other files give"


def _session(folder: Path) -> dict[str, Any]:
    return names.parse_report(names.read_text(folder / SESSION), source=SESSION)


def _changed_profiles(said: dict[str, Any], follows: dict[str, Any]) -> Iterable[str]:
    for name in sorted({*said, *follows}):
        one, other = (each.get(name, {}).get("verdict", "no verdict") for each in (said, follows))
        if one != other:
            yield f"profile {name}: the report says {one}, from its results follows {other}"
        elif said[name] != follows[name]:
            yield f"profile {name}: counts or ids in the report do not follow from its results"


def _waivers(folder: Path, report: Report) -> Iterable[str]:
    try:
        held = assembly.waivers_in(folder)
    except FileError as error:
        yield str(error)
        return
    day = assembly.day_of(report)
    for waiver in held:
        if waiver.is_expired(day):
            yield f"the waiver of {waiver.requirement} expired on {waiver.expires}, the run was on {day}"
    listed = [
        {key: it for key, it in entry.items() if key not in {"state", "in_error"}}
        for entry in report["waivers"]
    ]
    if listed != [waiver.to_json() for waiver in held]:
        yield f"the waivers in {names.REPORT} are not those in {names.WAIVERS}"
    yield from _some(
        f"is waived, and no waiver in {names.WAIVERS} covers it",
        [
            each["test"]
            for each in report["tests"]
            if each["outcome"] == "waived"
            and not any(it.covers(each["test"], each["requirements"], each["mode"]) for it in held)
        ],
    )
    for entry in report["waivers"]:
        if entry.get("in_error"):
            yield f"the waiver of {entry['requirement']} is in error: {entry['state']}"


def _manifest(folder: Path, report: Report) -> Iterable[str]:
    """Compare the manifest with the claims that the report says were tested."""
    manifest = parse_manifest(names.read_text(folder / names.MANIFEST), source=names.MANIFEST)
    backend, declared = report["implementation"]["backend"], report["capabilities"]["declared"]
    if manifest.device != backend:
        yield f"{names.MANIFEST} is about {manifest.device}, {names.REPORT} about {backend}"
    claims = {**manifest.claims, **manifest.maps, "order": manifest.order, "repeatable": manifest.repeatable}
    # Of accumulators the report tells those of dtypes that were probed.
    claims["accumulate"] = {**declared.get("accumulate", {}), **_known(claims, declared)}
    for name, claim in claims.items():
        if declared.get(name) != claim:
            yield f"{names.MANIFEST} claims another {name} than was tested, by {names.REPORT}"


def _known(claims: dict[str, Any], declared: dict[str, Any]) -> dict[str, Any]:
    probed = declared.get("accumulate", {})
    return {dtype: it for dtype, it in claims.get("accumulate", {}).items() if dtype in probed}


def _profiles(_: Path, report: Report) -> Iterable[str]:
    known = set(requirements.registry().profiles)
    named = {*report["profiles"], *report.get("profiles_not_judged", ())}
    yield from _some(f"is a profile of which {names.REPORT} does not say why it is not judged", known - named)


def _controls(_: Path, report: Report) -> Iterable[str]:
    # A device's name follows in parentheses.
    ran = {control["name"].rpartition(" (")[0] for control in report["controls"]}
    for name in CONTROLS.keys() - ran:
        yield f"the control mutant {name!r} did not run: nothing shows that the tests could fail"
    for control in report["controls"]:
        if not control["caught"]:
            yield f"the control mutant {control['name']} was not noticed"


def _page(folder: Path, report: Report) -> Iterable[str]:
    if report["suite"]["version"] == metadata.version("pytest-vdist") and (
        names.read_text(folder / names.PAGE) != html_text(report)
    ):
        yield f"{names.PAGE} does not show what {names.REPORT} says"


_CHECKS: tuple[Callable[[Path, Report], Iterable[str]], ...] = (
    *(_versions, _completeness, _waivers, _manifest, _profiles, _controls),
    *(_verdicts, _page),
)
