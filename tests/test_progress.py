"""A slow start of ranks says so in pytest's terminal."""

from __future__ import annotations

import re
import threading

import pytest

from pytest_vdist.backends.cpu import BACKEND
from pytest_vdist.ranks import team
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool
from pytest_vdist.ranks.ticking import every

# A notice is due so soon that every start is a slow one.
CONFTEST = """
import pytest
from pytest_vdist.ranks import team

@pytest.fixture(autouse=True, scope="session")
def impatient():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(team, "_NOTICE_EVERY", 0.1)
        yield
"""
TESTS = """
def test_first():
    print("printed by the test")

def test_ranks(distributed_run):
    print("printed by the test")
    distributed_run(lambda: 1)

def test_last():
    pass
"""
NOTICE = r"vdist: \d of 2 ranks are ready"


@pytest.fixture
def slow_start(pytester: pytest.Pytester, plain_sessions: None) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_a=TESTS)


def places_of_notices(lines: list[str]) -> tuple[int, int]:
    """Return the indices of the first and the last notice; each must have its line for itself."""
    places = [index for index, line in enumerate(lines) if "ranks are ready" in line]
    assert places
    assert all(re.fullmatch(NOTICE, lines[index]) for index in places)
    assert places == list(range(places[0], places[-1] + 1))
    return places[0], places[-1]


@pytest.mark.usefixtures("slow_start")
@pytest.mark.parametrize("capture", ["fd", "no"])
def test_notices_stand_on_lines_of_their_own_and_the_progress_goes_on(
    pytester: pytest.Pytester, capture: str
) -> None:
    result = pytester.runpytest_subprocess(f"--capture={capture}")
    result.assert_outcomes(passed=3)
    _, last = places_of_notices(result.outlines)
    assert re.fullmatch(r"test_a\.py \.\.(\s+\[100%\])?", result.outlines[last + 1])
    if capture != "no":
        assert "printed by the test" not in result.stdout.str()


@pytest.mark.usefixtures("slow_start")
def test_with_v_the_test_is_named_again_with_its_outcome(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("-v")
    result.assert_outcomes(passed=3)
    lines = result.outlines
    first, last = places_of_notices(lines)
    assert lines[first - 1].rstrip() == "test_a.py::test_ranks[cpu]"
    assert re.fullmatch(r"test_a\.py::test_ranks\[cpu\] PASSED \(2 ranks, .*\)\s+\[ 66%\]", lines[last + 1])
    assert re.fullmatch(r"test_a\.py::test_last PASSED\s+\[100%\]", lines[last + 2])


@pytest.mark.usefixtures("slow_start")
@pytest.mark.parametrize("options", [["-q"], ["-n1"], ["-p", "no:terminal"]], ids=" ".join)
def test_nothing_is_said_where_nobody_wants_to_know(pytester: pytest.Pytester, options: list[str]) -> None:
    result = pytester.runpytest_subprocess(*options)
    assert result.ret == 0
    assert "vdist:" not in result.stdout.str() + result.stderr.str()


@pytest.mark.usefixtures("slow_start")
def test_what_a_test_captures_by_fixture_has_no_notice_in_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_b="""
        def test_captured(capfd, distributed_run):
            print("before")
            distributed_run(lambda: 1)
            assert capfd.readouterr().out == "before\\n"
        """
    )
    result = pytester.runpytest_subprocess("test_b.py")
    result.assert_outcomes(passed=1)
    assert re.search(NOTICE, result.stdout.str())


def test_a_quick_start_says_nothing_and_a_slow_one_how_many_are_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    pool = RankPool(BACKEND, 1, notify=said.append)

    def start(ranks: int) -> list[str]:
        said.clear()
        pool.run(lambda: None, (), {}, world=WorldSpec("cpu"), world_size=ranks, timeout=60)
        return list(said)

    try:
        monkeypatch.setattr(team, "_NOTICE_EVERY", 60.0)
        assert start(2) == []
        monkeypatch.setattr(team, "_NOTICE_EVERY", 0.002)
        counts = [re.fullmatch(r"vdist: (\d+) of 6 ranks are ready", text) for text in start(6)]
        numbers = [int(match[1]) for match in counts if match]
        assert numbers
        assert len(numbers) == len(counts)
        assert numbers == sorted(numbers)
        assert start(6) == []
    finally:
        pool.close()


def test_ticks_come_while_the_context_is_open_and_never_after() -> None:
    ticked = threading.Event()
    ticks: list[str] = []

    def tick() -> None:
        ticks.append(threading.current_thread().name)
        ticked.set()

    with every(0.001, tick):
        assert ticked.wait(10)
    count = len(ticks)
    assert set(ticks) == {"vdist-progress"}
    assert "vdist-progress" not in {thread.name for thread in threading.enumerate()}
    assert len(ticks) == count


def test_leaving_does_not_wait_for_the_next_tick() -> None:
    ticks: list[int] = []
    with every(3600, lambda: ticks.append(1)):
        pass
    assert ticks == []
