"""Waivers in a session: failures that are known are run and reported as waived."""

from __future__ import annotations

import datetime as dt
from collections.abc import Generator, Sequence
from typing import Any

import pytest

from pytest_vdist.certificate.outcomes import BAD_WAIVER
from pytest_vdist.certificate.waivers import NOT_SELECTED, State, Waiver, state_of
from pytest_vdist.mutation.control_run import stand_in_of

WAIVED = "vdist.waived"
_COVERED = "vdist.waivers"
"""How a worker of pytest-xdist tells of waivers: their numbers, and if each covers tests that -k left out."""


class Waiving:
    """A plugin that turns the failures that waivers cover into waived ones, and judges the waivers."""

    def __init__(self, config: pytest.Config, waivers: Sequence[Waiver]) -> None:
        self._config = config
        self.waivers = tuple(waivers)
        self._today = dt.datetime.now(dt.UTC).date()
        self._covered: dict[str, list[Waiver]] = {}
        self._outcomes: dict[str, str] = {}
        self._sees_all = False  # pytest-xdist collects in its workers only

    # A wrapper, so that it sees what -k, a shard or a profile leaves out.
    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, None, None]:
        from pytest_vdist.certification.recorder import expected_of  # noqa: PLC0415 - it needs this module

        for item in items:
            known = expected_of(item)
            found = [each for each in self.waivers if each.covers(known.test, known.requirements, known.mode)]
            if found:
                self._covered[item.nodeid] = found
        return (yield)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        selected = {item.nodeid for item in session.items}
        self._outcomes = {nodeid: NOT_SELECTED for nodeid in self._covered if nodeid not in selected}
        self._sees_all = session.config.args_source is not pytest.Config.ArgsSource.ARGS

    # Last of the wrappers: others have noted how the test failed.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        waiver = self._valid_waiver(item.nodeid)
        # Control mutants have to fail, whatever is waived; a failure of the harness is nobody's to waive.
        if waiver is not None and stand_in_of(self._config) is None and _is_failure_of_test(report, call):
            waive(report, waiver)
        if report.when == "call" and item.nodeid in self._covered and hasattr(self._config, "workerinput"):
            report.user_properties.append((_COVERED, self._told_by_worker(item.nodeid)))
        return report

    def _told_by_worker(self, nodeid: str) -> list[tuple[int, bool]]:
        left_out = [self._covered[other] for other, it in self._outcomes.items() if it == NOT_SELECTED]
        return [
            (number, any(waiver in found for found in left_out))
            for number, waiver in enumerate(self.waivers)
            if waiver in self._covered[nodeid]
        ]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties: dict[str, Any] = dict(report.user_properties)
        for number, is_left_out in properties.get(_COVERED, ()):
            covered = self._covered.setdefault(report.nodeid, [])
            covered.append(self.waivers[number])
            if is_left_out:
                place = f"tests that waiver {number} covers and no worker ran"
                self._covered[place], self._outcomes[place] = [self.waivers[number]], NOT_SELECTED
        if report.nodeid not in self._covered:
            return
        if WAIVED in dict(report.user_properties):
            self._outcomes[report.nodeid] = "waived"
        elif report.failed:
            self._outcomes[report.nodeid] = "failed"
        elif report.skipped:
            self._outcomes[report.nodeid] = "not_run"
        else:
            self._outcomes.setdefault(report.nodeid, "passed")

    def states(self) -> list[tuple[Waiver, State]]:
        """Return the state of every waiver after what has run."""
        return [(waiver, self._state(waiver)) for waiver in self.waivers]

    def _state(self, waiver: Waiver) -> State:
        covered = [nodeid for nodeid, found in self._covered.items() if waiver in found]
        state = state_of(waiver, [self._outcomes.get(nodeid, "not_run") for nodeid in covered], self._today)
        return state if state is not State.UNMATCHED or self._sees_all else State.NOT_RUN

    def exit_code(self, code: int) -> int:
        """Return 11 in place of 0 where a waiver has to be taken out or renewed."""
        return BAD_WAIVER if code == 0 and any(state.is_error for _, state in self.states()) else code

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for waiver, state in self.states():
            if state.is_error:
                where = ", ".join(waiver.tests) or "all its tests"
                since = f" since {waiver.expires}" if state is State.EXPIRED else ""
                terminalreporter.write_line(
                    f"ERROR waiver of {waiver.requirement} ({where}, {waiver.issue}): "
                    f"{state.value}{since}; take it out or repair it"
                )

    def _valid_waiver(self, nodeid: str) -> Waiver | None:
        found = self._covered.get(nodeid, [])
        return next((waiver for waiver in found if not waiver.is_expired(self._today)), None)


def waive(report: pytest.TestReport, waiver: Waiver) -> None:
    """Turn the report of a failure into that of an expected one, as pytest reports xfail."""
    reason = f"{waiver.requirement}, {waiver.issue}: {waiver.reason} ({waiver.owner}, until {waiver.expires})"
    report.user_properties.append((WAIVED, reason))
    report.outcome = "skipped"
    report.wasxfail = f"waived: {reason}"


def status_of(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
    """Return what pytest shows for a waived test, None for any other."""
    if WAIVED in dict(getattr(report, "user_properties", ())):
        return "waived", "w", "WAIVED"
    return None


def _is_failure_of_test(report: pytest.TestReport, call: pytest.CallInfo[None]) -> bool:
    from pytest_vdist.ranks.failures import RanksUnavailableError  # noqa: PLC0415 - imports torch

    error = call.excinfo.value if call.excinfo else None
    return report.when == "call" and report.failed and not isinstance(error, RanksUnavailableError)
