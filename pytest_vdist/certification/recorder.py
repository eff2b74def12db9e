"""What became of each test, from pytest's reports to lines of results.jsonl."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_vdist import repeats, run_log
from pytest_vdist.certification.waiving import WAIVED
from pytest_vdist.options import DEFAULT, TABLE, Options
from pytest_vdist.suite_items import REQUIREMENT_MARKER, SUITES_PACKAGE

_HOW = "vdist.how"
_RANK = "vdist.rank"
_MARGIN = "vdist.margin"
_INTERNAL = (_HOW, _RANK, _MARGIN, WAIVED, repeats.FLAKY)
_NAMED_RANK = re.compile(r"\branks? (\d+)")
_LONGEST_TEXT = 20_000
_SUITES = "suites/"
# Modes are named by --vdist-… in the command that reproduces a failure; the rest is said once in the report.
_REPEATED = ("implementation", "manifest", "ranks_per_device", "timeout", "effort", "seed", "performance")


@dataclass(frozen=True)
class Expected:
    """A test that must have a result: its id relative to the suites, what it checks, and its mode."""

    test: str
    requirements: tuple[str, ...]
    mode: Mapping[str, Any]


def expected_of(item: pytest.Item) -> Expected:
    """Return what is known of a test before it runs."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    split = params.get("split_group")
    return Expected(
        item.nodeid.removeprefix(_SUITES),
        tuple(id_ for marker in item.iter_markers(REQUIREMENT_MARKER) for id_ in marker.args),
        {
            "backend": params.get("backend", ""),
            "split_group": None if split is None else "on" if split else "off",
            "compile": params.get("compile_mode"),
            **({"world_size": params["world_size"]} if "world_size" in params else {}),
        },
    )


def note_failure(report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
    """Add to the report of a failure how the ranks failed, while their exception is at hand."""
    from pytest_vdist.ranks.failures import DistributedRunError  # noqa: PLC0415 - imports torch

    error = call.excinfo.value if call.excinfo else None
    how = _how(error) if report.when == "call" else "error"
    rank = _first_rank(error) if isinstance(error, DistributedRunError) else None
    report.user_properties += [(_HOW, how), (_RANK, rank)]


def note_margin(report: pytest.TestReport, margins: list[float]) -> None:
    """Add to the report of a test the largest error / bound of its comparisons."""
    if margins:
        report.user_properties.append((_MARGIN, max(margins)))


@dataclass
class Recorder:
    """Collects the reports of each test's phases, and hands over a result when the last one is there."""

    options: Options
    expected: Mapping[str, Expected]
    add: Callable[[dict[str, Any]], None]
    _phases: dict[str, list[pytest.TestReport]] = field(default_factory=dict)

    def take(self, report: pytest.TestReport) -> None:
        """Take one report; the one of the tear-down is the last."""
        self._phases.setdefault(report.nodeid, []).append(report)
        if report.when == "teardown":
            self.add(self._result(report.nodeid, self._phases.pop(report.nodeid)))

    def _result(self, nodeid: str, phases: list[pytest.TestReport]) -> dict[str, Any]:
        known = self.expected[nodeid]
        properties = {name: value for phase in phases for name, value in phase.user_properties}
        outcome, reason = outcome_of(phases, properties)
        failing = next(
            (phase for phase in phases if phase.failed or WAIVED in dict(phase.user_properties)), None
        )
        sizes = str(properties.get(run_log.WORLD_SIZE, ""))
        return {
            "test": known.test,
            "requirements": list(known.requirements),
            "outcome": outcome,
            "mode": dict(known.mode),
            "world_sizes": [int(size) for size in sizes.split(",") if size],
            "seconds": round(sum(phase.duration for phase in phases), 6),
            "seconds_on_ranks": properties.get(run_log.SECONDS),
            "reason": reason,
            "failure": None if failing is None else self._failure(failing, known, properties),
            "margin": properties.get(_MARGIN),
            "properties": {name: value for name, value in properties.items() if name not in _INTERNAL},
        }

    def _failure(
        self, report: pytest.TestReport, known: Expected, properties: Mapping[str, Any]
    ) -> dict[str, Any]:
        text = report.longreprtext
        headline = _headline(report, text)
        named = _NAMED_RANK.search(headline)
        rank = properties.get(_RANK)
        return {
            "headline": headline,
            "text": text[-_LONGEST_TEXT:],
            "rank": int(named[1]) if rank is None and named else rank,
            "reproduce": reproduce(self.options, known),
        }


def outcome_of(phases: list[pytest.TestReport], properties: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the outcome of a test and the reason for it, None where there is nothing to say."""
    if any(phase.failed and phase.when != "call" for phase in phases):
        return "error", "the harness failed before or after the test"
    if repeats.FLAKY in properties:
        return "flaky", str(properties[repeats.FLAKY])
    if WAIVED in properties:
        return "waived", str(properties[WAIVED])
    if any(phase.failed for phase in phases):
        return str(properties.get(_HOW, "failed")), None
    skipped = next((phase for phase in phases if phase.skipped), None)
    if skipped is None:
        return "passed", None
    reason = _skip_reason(skipped)
    return ("unsupported" if reason.startswith("unsupported") else "not_run"), reason


def reproduce(options: Options, known: Expected) -> str:
    """Return the command that runs the test again, from anywhere."""
    module, _, test = known.test.partition("::")
    package = f"{SUITES_PACKAGE}.{module.removesuffix('.py').replace('/', '.')}"
    mode = known.mode
    words = ["pytest", "--pyargs", f"{package}::{test}", f"--vdist-backend={mode['backend']}"]
    words += [f"--vdist-split-group={mode['split_group']}"] if mode["split_group"] == "on" else []
    words += [f"--vdist-compile={mode['compile']}"] if mode["compile"] not in {None, "eager"} else []
    for row in TABLE:
        if row.name in _REPEATED and options.sources[row.name] != DEFAULT:
            value = getattr(options, row.name)
            words.append(f"{row.flag}={getattr(value, 'name', value)}")
    return shlex.join(words)


def _how(error: BaseException | None) -> str:
    from pytest_vdist.ranks.failures import (  # noqa: PLC0415 - imports torch
        RankDiedError,
        RanksHungError,
        RanksUnavailableError,
    )

    if isinstance(error, RanksHungError):
        return "hang"
    if isinstance(error, RankDiedError):
        return "crash"
    return "error" if isinstance(error, RanksUnavailableError) else "failed"


def _first_rank(error: Any) -> int | None:
    """Return the rank that failed first, or the first that is stuck."""
    from pytest_vdist.ranks.failures import State  # noqa: PLC0415 - imports torch

    failed = sorted(
        (status for status in error.statuses if status.state in {State.RAISED, State.DIED}),
        key=lambda status: status.monotonic,
    )
    stuck = [status for status in error.statuses if status.state is State.STUCK]
    return next((status.rank for status in [*failed, *stuck]), None)


def _headline(report: pytest.TestReport, text: str) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    message = str(crash.message) if crash is not None else text
    return next((line for line in message.splitlines() if line.strip()), "no message")


def _skip_reason(report: pytest.TestReport) -> str:
    longrepr = report.longrepr
    reason = longrepr[2] if isinstance(longrepr, tuple) else report.longreprtext
    return reason.removeprefix("Skipped: ")
