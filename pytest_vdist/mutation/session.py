"""One mutant against the suites, in this process: sessions of pytest that end at the first failure."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from pytest_vdist.certificate.requirements import registry
from pytest_vdist.certificate.suites import SUITES
from pytest_vdist.mutation.results import Kill, Result, fate_of
from pytest_vdist.ranks.failures import RankDiedError, RanksHungError, RanksUnavailableError
from pytest_vdist.reference_impl.mutants import MUTANTS, Mutant
from pytest_vdist.suite_items import REQUIREMENT_MARKER

_FACTORIES = "pytest_vdist.mutation.implementations"
_MESSAGE_LENGTH = 200
_TIMEOUT_OF_REFERENCE = 60.0


@dataclass(frozen=True)
class Settings:
    """How to run: the device backend and the deadline of one run of a function on ranks, in seconds."""

    backend: str
    timeout: float = 10.0


def run_mutant(name: str, settings: Settings) -> Result:
    """Run the tests of the requirements that should notice the mutant, then the rest if they did not."""
    mutant, start = MUTANTS[name], time.monotonic()
    chapters = {registry().requirements[id_].chapter: None for id_ in mutant.kills}
    watch = _Watch(mutant.kills, mutant.world_size)
    _session(watch, mutant, settings, [str(SUITES / chapter) for chapter in chapters])
    if watch.kill is None:
        watch.only_named = False
        _session(watch, mutant, settings, [str(SUITES)])
    return Result(
        mutant.name,
        settings.backend,
        mutant.defect,
        mutant.kills,
        fate_of(mutant.kills, watch.kill),
        round(time.monotonic() - start, 2),
        len(watch.finished),
        watch.kill,
    )


def failing_on_the_reference(tests: Iterable[str], settings: Settings, *, like: str) -> list[str]:
    """Return those of the tests that fail on the reference as it is, in the modes of the mutant `like`."""
    watch = _Control(set(tests))
    patient = replace(settings, timeout=max(settings.timeout, _TIMEOUT_OF_REFERENCE))
    arguments = _arguments(MUTANTS[like], patient, "reference")
    with _environment(MUTANTS[like]):
        pytest.main([*arguments, str(SUITES)], plugins=[watch])
    return sorted(watch.failed | (watch.wanted - watch.finished))


def _session(watch: _Watch, mutant: Mutant, settings: Settings, paths: Sequence[str]) -> None:
    arguments = _arguments(mutant, settings, f"{_FACTORIES}:{mutant.name}")
    with _environment(mutant):
        code = pytest.main(["-x", *arguments, *paths], plugins=[watch])
    expected = {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED}
    if watch.kill is None and code not in expected:
        watch.kill = Kill("", (), "error", f"pytest ended with exit code {int(code)}")


@contextmanager
def _environment(mutant: Mutant) -> Iterator[None]:
    """Set the variables of a mutant for a while."""
    before = {name: os.environ.get(name) for name, _ in mutant.environment}
    os.environ.update(mutant.environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _arguments(mutant: Mutant, settings: Settings, implementation: str) -> list[str]:
    return [
        "-c",
        os.devnull,
        f"--rootdir={SUITES}",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--vdist-backend={settings.backend}",
        f"--vdist-impl={implementation}",
        f"--vdist-timeout={max(settings.timeout, mutant.timeout)}",
        f"--vdist-split-group={'on' if mutant.split_group else 'off'}",
        f"--vdist-compile={mutant.compile_mode}",
    ]


class _Watch:
    """A plugin that puts the tests that should notice first, and keeps the first failure."""

    def __init__(self, expected: Sequence[str], world_size: int) -> None:
        self._expected = expected
        self._world_size = world_size
        self.only_named = True
        self.kill: Kill | None = None
        self.finished: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid not in self.finished]
        if self.only_named:
            chosen = [item for item in chosen if self._place(item) < len(self._expected)]
        items[:] = sorted(chosen, key=lambda item: (self._place(item), self._distance(item)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self.finished.add(item.nodeid)
        if report.failed and self.kill is None:
            error = call.excinfo.value if call.excinfo else None
            how = how_it_failed(error) if call.when == "call" else "error"
            self.kill = Kill(item.nodeid, requirements_of(item), how, first_line(error))
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.kill is None:
            text = str(report.longrepr)[-_MESSAGE_LENGTH:]
            self.kill = Kill(report.nodeid, (), "error", f"not collected: {text}")

    def _place(self, item: pytest.Item) -> int:
        """Return which of the expected requirements the test checks, their number for none."""
        checked = requirements_of(item)
        return next(
            (place for place, id_ in enumerate(self._expected) if id_ in checked), len(self._expected)
        )

    def _distance(self, item: pytest.Item) -> tuple[bool, int]:
        """Put worlds of the size that shows the mutant first, then larger, then smaller ones."""
        callspec = getattr(item, "callspec", None)
        size = callspec.params.get("world_size", self._world_size) if callspec else self._world_size
        return size < self._world_size, abs(size - self._world_size)


class _Control:
    """A plugin that runs the wanted tests only, and notes which fail."""

    def __init__(self, wanted: set[str]) -> None:
        self.wanted = wanted
        self.finished: set[str] = set()
        self.failed: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self.wanted]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        if report.when == "teardown":
            self.finished.add(report.nodeid)


def requirements_of(item: pytest.Item) -> tuple[str, ...]:
    return tuple(id_ for marker in item.iter_markers(REQUIREMENT_MARKER) for id_ in marker.args)


def how_it_failed(error: BaseException | None) -> str:
    if isinstance(error, RanksUnavailableError):
        return "error"
    if isinstance(error, RanksHungError):
        return "hang"
    return "died" if isinstance(error, RankDiedError) else "failed"


def first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:_MESSAGE_LENGTH]
