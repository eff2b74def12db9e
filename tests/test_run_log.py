"""Outcome words and properties of tests that ran on ranks."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch  # noqa: F401 - pytester forgets what its sessions import, and torch cannot be imported twice

from pytest_vdist.certificate.outcomes import RANKS_PER_DEVICE
from pytest_vdist.run_log import (
    NODES,
    RUNS,
    SECONDS,
    WORLD_SIZE,
    RunRecord,
    description,
    duration_text,
    properties_of,
)

pytestmark = pytest.mark.usefixtures("plain_sessions")

TESTS = """
import pytest
import torch  # noqa: F401 - pytester forgets what its sessions import, and torch cannot be imported twice

@pytest.fixture
def prepared(distributed_run):
    yield distributed_run(lambda: 1, world_size=3)
    distributed_run(lambda: 1, world_size=1)

def test_once(distributed_run):
    distributed_run(lambda: 1)

def test_two_sizes(distributed_run):
    for size in (2, 1, 2):
        distributed_run(lambda: 1, world_size=size)

def test_prepared(prepared):
    pass

def test_without_ranks():
    pass

def test_failed(distributed_run):
    def body():
        assert 1 == 2
    distributed_run(body, world_size=1)

def test_skipped(distributed_run):
    distributed_run(lambda: pytest.skip("not here"), world_size=1)

@pytest.mark.xfail
def test_expected_to_fail(distributed_run):
    distributed_run(lambda: 1 / 0, world_size=1)
"""

TIME = r"\d+(\.\d)? m?s"


def without_repetition(properties: list[tuple[str, str]]) -> dict[str, str]:
    assert len(dict(properties)) == len(properties)
    return dict(properties)


def properties_in_junit(path: Path) -> dict[str, dict[str, str]]:
    return {
        str(case.get("name")).removesuffix("[cpu]"): without_repetition(
            [(str(p.get("name")), str(p.get("value"))) for p in case.iter("property")]
        )
        for case in ET.parse(path).iter("testcase")
    }


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_outcomes_and_junit_properties_tell_ranks_and_time(
    pytester: pytest.Pytester, workers: list[str]
) -> None:
    pytester.makepyfile(TESTS)
    result = pytester.runpytest("-v", "-rA", "--junit-xml=junit.xml", *workers)
    result.assert_outcomes(passed=4, failed=1, skipped=1, xfailed=1)
    during, _, summary = result.stdout.str().partition("short test summary info")
    outcomes = {
        "test_once": rf"PASSED \(2 ranks, {TIME}\)",
        "test_two_sizes": rf"PASSED \(1, 2 ranks, {TIME}\)",
        "test_prepared": rf"PASSED \(3 ranks, {TIME}\)",
        "test_without_ranks": r"PASSED",
        "test_failed": rf"FAILED \(1 rank, {TIME}\)",
        "test_skipped": rf"SKIPPED \(1 rank, {TIME}\)( \(.*\))?",
        "test_expected_to_fail": rf"XFAIL \(1 rank, {TIME}\)",
    }
    for test, outcome in outcomes.items():
        line = (
            rf"\] {outcome} \S+::{test}(\[cpu\])?\s*$"
            if workers
            else rf"::{test}(\[cpu\])? {outcome}\s+\[ *\d+%\]$"
        )
        assert re.search(line, during, re.MULTILINE), f"no line {line} in {during}"
    assert " ranks" not in summary
    assert re.search(r"^PASSED \S+::test_once\[cpu\]$", summary, re.MULTILINE)

    found = properties_in_junit(pytester.path / "junit.xml")
    assert {test: (p.get(WORLD_SIZE), p.get(RUNS)) for test, p in found.items()} == {
        "test_once": ("2", "1"),
        "test_two_sizes": ("1,2", "3"),
        "test_prepared": ("1,3", "2"),
        "test_without_ranks": (None, None),
        "test_failed": ("1", "1"),
        "test_skipped": ("1", "1"),
        "test_expected_to_fail": ("1", "1"),
    }
    assert all(0 < float(p[SECONDS]) < 60 for test, p in found.items() if test != "test_without_ranks")


def test_without_v_the_progress_is_pytests_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(distributed_run): distributed_run(lambda: 1, world_size=1)")
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    result.stdout.re_match_lines([r"test_without_v\S+\.py \.\s+\[100%\]$"])


def test_time_on_ranks_excludes_their_start_and_includes_what_the_function_takes(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        from pytest_vdist import Availability, DeviceBackend

        def pytest_vdist_backends(config):
            probe = lambda: Availability(1, "one", "plug it in")
            device = "slow to start", "cpu", "gloo", probe, lambda: "1", ("float32",), ("float32",)
            return [DeviceBackend(*device, rank_setup="slow_device:start")]
        """
    )
    pytester.makepyfile(
        slow_device="""
        import threading

        def start():
            threading.Event().wait(1.0)
        """,
        test_it="""
        import threading

        def test_it(distributed_run):
            distributed_run(lambda: threading.Event().wait(0.2), world_size=1)
        """,
    )
    result = pytester.runpytest("--vdist-backend=slow to start", "--junit-xml=junit.xml")
    result.assert_outcomes(passed=1)
    found = properties_in_junit(pytester.path / "junit.xml")
    seconds = float(found["test_it[slow to start]"][SECONDS])
    (case,) = ET.parse(pytester.path / "junit.xml").iter("testcase")
    assert 0.2 <= seconds <= float(str(case.get("time"))) - 1.0


def test_other_properties_of_the_test_stay(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_it(distributed_run, record_property):
            record_property("mine", 7)
            distributed_run(lambda: 1, world_size=1)
            record_property("mine", 8)
        """
    )
    pytester.runpytest("--junit-xml=junit.xml", "-ojunit_family=xunit1").assert_outcomes(passed=1)
    (case,) = ET.parse(pytester.path / "junit.xml").iter("testcase")
    names = [p.get("name") for p in case.iter("property")]
    assert sorted(str(name) for name in names) == ["mine", "mine", NODES, RUNS, SECONDS, WORLD_SIZE]


def test_properties_sum_runs_and_name_each_world_size_once() -> None:
    runs = [RunRecord(10, 0.5, nodes=3), RunRecord(2, 0.25), RunRecord(10, 0.25, nodes=3)]
    assert properties_of(runs) == {WORLD_SIZE: "2,10", NODES: 3, RUNS: 3, SECONDS: 1.0}
    shared = [RunRecord(2, 0.5), RunRecord(4, 0.5, ranks_per_device=2)]
    assert properties_of(shared)[RANKS_PER_DEVICE] == 2


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        ({WORLD_SIZE: "2", SECONDS: 0.003}, "2 ranks, 3 ms"),
        ({WORLD_SIZE: "4", NODES: 2, SECONDS: 0.003}, "4 ranks on 2 nodes, 3 ms"),
        ({WORLD_SIZE: "4", RANKS_PER_DEVICE: 2, SECONDS: 0.003}, "4 ranks, 2 on a device, 3 ms"),
        ({WORLD_SIZE: "1", SECONDS: 0.003}, "1 rank, 3 ms"),
        ({WORLD_SIZE: "2,4", SECONDS: 2}, "2, 4 ranks, 2.0 s"),
        ({}, ""),
        ({WORLD_SIZE: "2"}, ""),
    ],
)
def test_properties_are_described_in_words(properties: dict[str, object], text: str) -> None:
    assert description(properties) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0.4 ms"),
        (0.00094, "0.9 ms"),
        (0.00096, "1 ms"),
        (0.0031, "3 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (75.2, "75 s"),
    ],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
