"""--vdist-verify: each test several times, on the same ranks and on fresh ones."""

from __future__ import annotations

import re

import pytest

from pytest_vdist.repeats import description

pytestmark = pytest.mark.usefixtures("plain_sessions")

COUNTED = """
from pathlib import Path

def count(name):
    path = Path(name)
    number = len(path.read_text()) + 1 if path.exists() else 1
    path.write_text("x" * number)
    return number
"""


def run(pytester: pytest.Pytester, source: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(COUNTED + source)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_a_test_runs_so_often_and_is_reported_once(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_a():\n    count('a')\n", "--vdist-verify=5")
    result.assert_outcomes(passed=1)
    assert (pytester.path / "a").read_text() == "x" * 5
    assert result.ret == 0


def test_a_test_that_fails_sometimes_is_flaky_by_name(pytester: pytest.Pytester) -> None:
    source = "def test_a():\n    assert count('a') not in (2, 4)\n\ndef test_b():\n    pass\n"
    result = run(pytester, source, "--vdist-verify=4", "-v")
    result.stdout.fnmatch_lines(
        [
            "*::test_a FLAKY*",
            "*::test_b PASSED*",
            "FLAKY *::test_a: failed in 2 of 4 runs (on the same ranks: run 2; on fresh ranks: run 4)",
            "*assert 2 not in*",
            "*1 passed, 1 flaky in*",
        ]
    )
    assert result.ret == 13


def test_a_test_that_fails_every_time_has_failed(pytester: pytest.Pytester) -> None:
    source = "def test_a():\n    assert count('a') not in (2, 4)\n\ndef test_b():\n    assert 0\n"
    result = run(pytester, source, "--vdist-verify=4", "-q")
    result.stdout.fnmatch_lines(["*1 failed, 1 flaky in*"])
    assert result.ret == 1


def test_a_skipped_test_is_not_repeated(pytester: pytest.Pytester) -> None:
    source = "import pytest\ndef test_a():\n    count('a')\n    pytest.skip('no reason')\n"
    result = run(pytester, source, "--vdist-verify=4")
    result.assert_outcomes(skipped=1)
    assert (pytester.path / "a").read_text() == "x"


def test_half_of_the_runs_are_on_the_same_ranks_and_half_on_fresh_ones(pytester: pytest.Pytester) -> None:
    source = """
import os

def test_a(distributed_run):
    count('a')
    with open("pids", "a") as file:
        print(*distributed_run(os.getpid, init_process_group=False), file=file)
"""
    result = run(pytester, source, "--vdist-verify=5")
    result.assert_outcomes(passed=1)
    first, second, third, fourth, fifth = (pytester.path / "pids").read_text().splitlines()
    assert first == second == third
    assert len({first, fourth, fifth}) == 3


def test_workers_of_xdist_repeat_too(pytester: pytest.Pytester) -> None:
    source = "def test_a():\n    assert count('a') != 2\n\ndef test_b():\n    count('b')\n"
    result = run(pytester, source, "--vdist-verify=2", "-n2")
    assert (pytester.path / "b").read_text() == "xx"
    assert re.search(r"^FLAKY \S+::test_a: failed in 1 of 2 runs", result.stdout.str(), re.MULTILINE)
    assert result.ret == 13


@pytest.mark.parametrize(
    ("failed", "text"),
    [
        ([1, 2], "failed in 2 of 5 runs (on the same ranks: runs 1, 2)"),
        ([4], "failed in 1 of 5 runs (on fresh ranks: run 4)"),
        ([3, 4, 5], "failed in 3 of 5 runs (on the same ranks: run 3; on fresh ranks: runs 4, 5)"),
    ],
)
def test_a_description_tells_which_runs_failed(failed: list[int], text: str) -> None:
    assert description(failed, 5) == text
