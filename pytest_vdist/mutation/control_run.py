"""Control mutants in a session: before the tests run, some of them must fail on each mutant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from pytest_vdist import _compat
from pytest_vdist.certificate.controls import CONTROLS
from pytest_vdist.implementations.spec import ImplementationSpec
from pytest_vdist.mutation.control import ControlSpec
from pytest_vdist.options import options_of
from pytest_vdist.suite_items import REQUIREMENT_MARKER

# A control mutant is a gross defect: if these do not notice it, no others are needed.
_MOST_TESTS = 3
EXIT_CODE = 15


@dataclass
class ControlReport:
    """What became of the control mutants: the test that noticed each, and what is wrong if none did."""

    noticed: dict[str, str] = field(default_factory=dict)
    missed: dict[str, str] = field(default_factory=dict)

    @property
    def convincing(self) -> bool:
        return not self.missed


_STAND_IN = pytest.StashKey[ImplementationSpec]()
_REPORT = pytest.StashKey[ControlReport]()


def stand_in_of(config: pytest.Config) -> ImplementationSpec | None:
    """Return the control mutant that is under test now, None while it is the implementation itself."""
    return config.stash.get(_STAND_IN, None)


def report_of(config: pytest.Config) -> ControlReport | None:
    """Return what became of the control mutants, None where the session has not run them."""
    return config.stash.get(_REPORT, None)


def run_controls(session: pytest.Session, items: Sequence[pytest.Item] | None = None) -> None:
    """Run tests on each control mutant until one of them fails, for every device of the session.

    They are taken from `items`, by default those of the session.
    """
    report = session.config.stash[_REPORT] = ControlReport()
    for device in options_of(session.config).backends:
        for control, requirements in CONTROLS.items():
            name = f"{control} ({device.name})"
            tests = _tests_of(session.items if items is None else items, requirements, device.name)
            if not tests:
                report.missed[name] = (
                    f"no test of {', '.join(requirements)} with two ranks or more is selected"
                )
                continue
            _run_control(session, control, name, tests, report)


def _run_control(
    session: pytest.Session, control: str, name: str, tests: Sequence[pytest.Item], report: ControlReport
) -> None:
    stash = session.config.stash
    stash[_STAND_IN] = ControlSpec.of(options_of(session.config).implementation, control)
    try:
        for test in tests:
            phases = _compat.run_item(test, session)
            if any(phase.when != "call" and phase.failed for phase in phases):
                report.missed[name] = f"{test.nodeid} has an error before or after it runs"
                return
            if any(phase.failed for phase in phases):
                report.noticed[name] = test.nodeid
                return
    finally:
        del stash[_STAND_IN]
    report.missed[name] = f"{', '.join(test.nodeid for test in tests)} passed"


def _tests_of(items: Sequence[pytest.Item], requirements: Sequence[str], device: str) -> list[pytest.Item]:
    """Return a few tests of the requirements on that device, in worlds of two and more, smallest first."""
    found = []
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        names = {id_ for marker in item.iter_markers(REQUIREMENT_MARKER) for id_ in marker.args}
        can_run = not any(item.iter_markers("skip"))
        if names & set(requirements) and params.get("backend") == device and can_run:
            size = params.get("world_size", 1)
            if size > 1:
                found.append((size, item))
    return [item for _, item in sorted(found, key=lambda pair: pair[0])[:_MOST_TESTS]]


def refuse_several_processes(config: pytest.Config) -> None:
    """Raise pytest.UsageError where xdist would deal out the tests: each process would judge on its own."""
    if options_of(config).control and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError(
            f"control mutants need all tests in one process, got -n {config.option.numprocesses} with "
            f"{options_of(config).origin('control')}; leave out -n, or pass --vdist-control=off"
        )


def summary_lines(config: pytest.Config) -> list[str]:
    """Return a line that says how many were noticed, and one for each that was not."""
    report = report_of(config)
    if report is None:
        return []
    lines = [f"control mutants: {len(report.noticed)} of {len(report.noticed) + len(report.missed)} noticed"]
    return lines + [f"ERROR control mutant not noticed: {name}: {why}" for name, why in report.missed.items()]


def exit_code(config: pytest.Config, code: int) -> int:
    """Return 15 in place of 0 where the session did not notice a control mutant: its verdict is void."""
    report = report_of(config)
    return EXIT_CODE if code == 0 and report is not None and not report.convincing else code
