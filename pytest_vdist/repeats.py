"""Each test several times (--vdist-verify): half on the same ranks, half on fresh ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from pytest_vdist import _compat
from pytest_vdist.options import options_of

FLAKY = "vdist.flaky"
EXIT_CODE = 13

_RENEW = pytest.StashKey[list[Callable[[], None]]]()
_FLAKY = pytest.StashKey[dict[str, str]]()
_FAILED = pytest.StashKey[list[str]]()


def on_renewal(config: pytest.Config, renew: Callable[[], None]) -> None:
    """Have `renew` called whenever a test is to find fresh ranks."""
    config.stash.setdefault(_RENEW, []).append(renew)


def run_repeatedly(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test as often as the session says, and report it once. Return False where that is once."""
    times = options_of(item.config).verify
    if times == 1:
        return False
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    runs: list[list[pytest.TestReport]] = []
    for number in range(1, times + 1):
        fresh = number > (times + 1) // 2
        for renew in item.config.stash.get(_RENEW, []) if fresh else []:
            renew()
        runs.append(_compat.run_item(item, item.session if number < times else nextitem))
        if any(report.skipped for report in runs[0]):
            break
    for report in summary_of(runs, times):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def summary_of(runs: Sequence[Sequence[pytest.TestReport]], times: int) -> list[pytest.TestReport]:
    """Return the reports that stand for all runs: those of the first that failed, else of the last one.

    Where only some failed, the failing report says in how many and which, and is marked as flaky.
    """
    failed = [number for number, run in enumerate(runs, 1) if any(report.failed for report in run)]
    if not failed:
        return list(runs[-1])
    reports = list(runs[failed[0] - 1])
    if len(failed) < len(runs):
        text = description(failed, times)
        for report in reports:
            if report.failed:
                report.user_properties.append((FLAKY, text))
                report.sections.insert(0, ("vdist: flaky", text))
    return reports


def description(failed: Sequence[int], times: int) -> str:
    """Return which runs failed, in words."""
    same = [str(number) for number in failed if number <= (times + 1) // 2]
    fresh = [str(number) for number in failed if number > (times + 1) // 2]
    parts = [
        f"{kind}: run{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
        for kind, numbers in (("on the same ranks", same), ("on fresh ranks", fresh))
        if numbers
    ]
    return f"failed in {len(failed)} of {times} runs ({'; '.join(parts)})"


class Record:
    """A plugin that remembers the tests that failed, and those that failed only sometimes."""

    def __init__(self, config: pytest.Config) -> None:
        self._failed = config.stash.setdefault(_FAILED, [])
        self._flaky = config.stash.setdefault(_FLAKY, {})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        text = dict(report.user_properties).get(FLAKY)
        if report.failed and text is None:
            self._failed.append(report.nodeid)
        elif report.failed:
            self._flaky[report.nodeid] = f"{text}\n{report.longreprtext}"


def status_of(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
    """Return what pytest shows for a flaky test, None for any other."""
    if report.failed and FLAKY in dict(getattr(report, "user_properties", ())):
        return "flaky", "K", "FLAKY"
    return None


def exit_code(config: pytest.Config, code: int) -> int:
    """Return 13 in place of pytest's 1 where no test failed every time."""
    only_flaky = config.stash[_FLAKY] and not config.stash[_FAILED]
    return EXIT_CODE if code == pytest.ExitCode.TESTS_FAILED and only_flaky else code


def summary_lines(config: pytest.Config) -> list[str]:
    """Say, for each flaky test, in which runs it failed, and how the first of them did."""
    return [f"FLAKY {nodeid}: {text}" for nodeid, text in config.stash[_FLAKY].items()]
