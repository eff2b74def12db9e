"""Flags that people use every day do with tests on ranks what they do with any test, and leave no rank."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("plain_sessions")
SOURCE = """
import os
from pathlib import Path
from pytest_vdist import current_rank

HERE = Path(__file__).parent

def body(wrong):
    (HERE / f"rank-{os.getpid()}").touch()
    assert not (wrong and current_rank().rank == 1), "rank 1 is wrong"

def test_right(distributed_run): distributed_run(body, False)
def test_wrong(distributed_run): distributed_run(body, True)
def test_last(distributed_run): distributed_run(body, False)
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> Path:
    pytester.makepyfile(test_a=SOURCE)
    return pytester.path


def ranks_left(folder: Path) -> list[int]:
    """Return the ranks of the last session that are still there; there must have been some."""
    files = list(folder.glob("rank-*"))
    assert files
    left = []
    for file in files:
        file.unlink()
        pid = int(file.name.removeprefix("rank-"))
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        left.append(pid)
    return left


def test_durations_and_junit_files_then_what_failed_last_alone_or_first(
    project: Path, pytester: pytest.Pytester
) -> None:
    flags = ("--durations=0", "--durations-min=0", "--junitxml=j.xml", "-p", "no:randomly")
    first = pytester.runpytest_subprocess(*flags)
    first.assert_outcomes(passed=2, failed=1)
    assert first.ret == 1
    first.stdout.re_match_lines([r"\d+\.\d+s call     test_a\.py::test_right\[cpu\]"])
    cases = {
        case.attrib["name"].removesuffix("[cpu]"): case
        for case in ET.parse(project / "j.xml").iter("testcase")
    }
    assert {name: case.find("failure") is None for name, case in cases.items()} == {
        "test_right": True,
        "test_wrong": False,
        "test_last": True,
    }
    failure = cases["test_wrong"].find("failure")
    assert failure is not None
    assert "rank 1 is wrong" in failure.attrib["message"]
    sizes = [
        found.attrib["value"]
        for found in cases["test_last"].iterfind(".//property[@name='vdist.world_size']")
    ]
    assert sizes == ["2"]
    assert ranks_left(project) == []
    again = pytester.runpytest_subprocess("--lf", "-x")
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(
        ["run-last-failure: rerun previous 1 failure*", "!*stopping after 1 failures*"]
    )
    assert ranks_left(project) == []
    order = pytester.runpytest_subprocess("--ff", "--maxfail=2", "-v")
    order.assert_outcomes(passed=2, failed=1)
    order.stdout.fnmatch_lines(["test_a.py::test_wrong*FAILED*", "test_a.py::test_right*PASSED*"])
    assert ranks_left(project) == []


def test_workers_take_a_selection_and_files_of_junit(project: Path, pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("-n2", "-k", "not wrong", "--junitxml=j.xml", "--durations=1")
    result.assert_outcomes(passed=2)
    assert sorted(case.attrib["name"] for case in ET.parse(project / "j.xml").iter("testcase")) == [
        "test_last[cpu]",
        "test_right[cpu]",
    ]
    assert ranks_left(project) == []


def test_without_terminal_and_cache_the_exit_code_tells(project: Path, pytester: pytest.Pytester) -> None:
    quiet = ("-p", "no:terminal", "-p", "no:cacheprovider")
    result = pytester.runpytest_subprocess(*quiet, "--deselect=test_a.py::test_wrong")
    assert (result.ret, result.stdout.str(), result.stderr.str()) == (0, "", "")
    assert not (project / ".pytest_cache").exists()
    assert ranks_left(project) == []


def test_what_is_only_collected_starts_no_rank(project: Path, pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--collect-only", "-q", "-k", "right or last")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["test_a.py::test_right?cpu?", "test_a.py::test_last?cpu?", "", "2/3 tests collected*"]
    )
    assert list(project.glob("rank-*")) == []
