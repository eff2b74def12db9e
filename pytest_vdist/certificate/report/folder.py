"""The folder of a certificate: the names of its files, and reading them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

REPORT = "report.json"
RESULTS = "results.jsonl"
JUNIT = "junit.xml"
MUST_PASS = "must-pass.txt"  # noqa: S105 - no password
MANIFEST = "manifest.toml"
WAIVERS = "waivers.toml"
COMMAND = "command.txt"
PAGE = "report.html"
SUMS = "SHA256SUMS"
ATTESTATION = "attestation.intoto.json"
PUBLIC_KEY = "attestation.pub"
REQUIRED = (RESULTS, REPORT, JUNIT, MUST_PASS, MANIFEST, COMMAND, PAGE, SUMS)

Report = dict[str, Any]


class ReportError(Exception):
    """Raised for a report or a folder that cannot be used: says what, which file and what to do."""


def read_report(place: Path) -> Report:
    """Return the report of a folder, or of a file itself. Raises ReportError if there is no JSON object."""
    path = place / REPORT if place.is_dir() else place
    return parse_report(read_text(path), source=str(path))


def parse_report(text: str, *, source: str) -> Report:
    """Return the report written in `text`. Raises ReportError, which names `source`, for no object."""
    try:
        report = json.loads(text)
    except ValueError as error:
        raise ReportError(f"{source} is not valid JSON: {error}") from error
    if not isinstance(report, dict):
        raise ReportError(f"{source} must hold a JSON object, got {type(report).__name__}")
    return report


def read_text(path: Path) -> str:
    """Return the text of a file. Raises ReportError if it is not there or no UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise ReportError(f"{path} is not there; name a folder that --vdist-certify wrote") from None
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ReportError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def must_pass_ids(text: str) -> list[str]:
    """Return the ids of a must-pass list: one a line; empty lines and comments are none."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def results_of(text: str, *, source: str) -> list[dict[str, Any]]:
    """Return the results of a results.jsonl. Raises ReportError, which names the line that is no JSON."""
    results = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            results.append(parse_report(line, source=f"{source}, line {number},"))
    return results


def report_text(report: Report) -> str:
    """Return a report as text: sorted keys, one way only to write it."""
    return json.dumps(report, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def results_text(results: list[dict[str, Any]]) -> str:
    """Return results as the text of a results.jsonl."""
    return "".join(json.dumps(result, sort_keys=True, ensure_ascii=False) + "\n" for result in results)
