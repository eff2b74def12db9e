from __future__ import annotations

import os
import re
import signal
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch.distributed as dist

from pytest_vdist import (
    DistributedRun,
    OutcomesRun,
    OutcomesSideBySide,
    current_rank,
    process_group_timeout,
)
from pytest_vdist.faults.meeting import Meeting
from pytest_vdist.ranks.process import last_lines


def test_every_rank_ends_in_its_own_way_and_in_its_own_time(outcomes_run: OutcomesRun) -> None:
    """A rank that raises, one that dies and one that is stopped do not shorten the time of the last one."""

    def body() -> float:
        here = current_rank().rank
        if here == 1:
            raise ValueError("on purpose")
        if here == 2:
            os._exit(3)
        if here == 3:
            os.kill(os.getpid(), signal.SIGSTOP)
        threading.Event().wait(1.5)  # three times as long as others have after a failure in a usual run
        return time.monotonic()

    outcomes = outcomes_run(body, world_size=4, timeout=6.0)

    assert [(outcome.rank, outcome.state) for outcome in outcomes] == [
        (0, "returned"),
        (1, "raised"),
        (2, "died"),
        (3, "stuck"),
    ]
    returned, raised, died, stuck = outcomes
    assert raised.reason == "ValueError: on purpose"
    assert died.reason == "its process exited with code 3"
    assert died.monotonic < returned.value - 0.5, "the rank had not all of its time"
    assert stuck.value is None


def test_what_a_dead_rank_wrote_and_where_a_stuck_one_is_can_be_read(
    outcomes_run: OutcomesRun, capfd: pytest.CaptureFixture[str]
) -> None:
    def body() -> None:
        if current_rank().rank == 0:
            os.write(2, b"terminate called: the watchdog caught a timeout\n")
            os.abort()
        wait_for_nobody()

    def wait_for_nobody() -> None:
        threading.Event().wait(60)

    died, stuck = outcomes_run(body, world_size=2, timeout=3.0)
    assert (died.state, died.reason) == ("died", "killed by SIGABRT")
    assert stuck.state == "stuck"
    assert re.fullmatch(
        r"before its first collective, at wait_for_nobody \(test_outcomes\.py:\d+\)", stuck.reason
    )
    shown = capfd.readouterr().err
    assert "[rank 0] terminate called: the watchdog caught a timeout" in shown
    assert re.search(r"^\[rank 1\] .*test_outcomes\.py.*wait_for_nobody", shown, re.MULTILINE)


def test_the_cause_of_an_abort_is_shown_though_many_frames_follow_it() -> None:
    cause = "  what():  [PG ID 1 Rank 0] Watchdog caught collective operation timeout"
    frames = [f"frame #{number}: <unknown function>" for number in range(100)]
    shown = last_lines("\n".join(["loading", "terminate called after throwing", cause, *frames]))
    assert shown.splitlines() == ["terminate called after throwing", cause, "…", *frames[-40:]]
    assert last_lines("\n".join(["loading", *frames])).splitlines() == frames[-40:]


def test_ranks_that_all_return_serve_the_next_run(
    outcomes_run: OutcomesRun, distributed_run: DistributedRun
) -> None:
    outcomes = outcomes_run(os.getpid, world_size=2)
    assert [outcome.state for outcome in outcomes] == ["returned", "returned"]
    assert distributed_run(os.getpid, init_process_group=False) == [outcome.value for outcome in outcomes]


def test_the_run_after_a_lost_rank_has_new_ranks(
    outcomes_run: OutcomesRun, distributed_run: DistributedRun
) -> None:
    def end() -> None:
        os._exit(7)

    before = [outcome.value for outcome in outcomes_run(os.getpid, world_size=2)]
    assert [outcome.state for outcome in outcomes_run(end, world_size=2)] == ["died", "died"]
    assert set(distributed_run(os.getpid)).isdisjoint(before)


def test_plays_are_run_at_the_same_time_and_end_each_in_its_own_way(
    outcomes_side_by_side: OutcomesSideBySide, tmp_path: Path
) -> None:
    def body(place: str, play: int) -> int:
        Meeting(place, 2 * play + current_rank().rank).gather("here", list(range(6)))  # of all three plays
        if play == 1 and current_rank().rank == 1:
            os._exit(3)
        if play == 2:
            raise ValueError("on purpose")
        return os.getpid()

    of_plays = outcomes_side_by_side(
        body, [(str(tmp_path / "meeting"), play) for play in range(3)], world_size=2, timeout=20.0
    )
    assert [[outcome.state for outcome in outcomes] for outcomes in of_plays] == [
        ["returned", "returned"],
        ["returned", "died"],
        ["raised", "raised"],
    ]
    pids = [outcome.value for outcomes in of_plays for outcome in outcomes if outcome.state == "returned"]
    assert len(set(pids)) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_at_most_sixteen_ranks_run_side_by_side(outcomes_side_by_side: OutcomesSideBySide) -> None:
    def body(play: int) -> tuple[int, float, float]:
        start = time.monotonic()
        threading.Event().wait(0.2)
        return play, start, time.monotonic()

    of_plays = outcomes_side_by_side(body, [(play,) for play in range(5)], world_size=4)
    values = [[outcome.value for outcome in outcomes] for outcomes in of_plays]
    assert [[play for play, _, _ in of_play] for of_play in values] == [[play] * 4 for play in range(5)]
    ends = [end for of_play in values[:4] for _, _, end in of_play]
    assert min(start for _, start, _ in values[4]) > max(ends)
    assert outcomes_side_by_side(os.getpid, [], world_size=4) == []


def test_what_ranks_write_says_in_which_play(
    outcomes_side_by_side: OutcomesSideBySide, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(text: str) -> None:
        print(text)
        warnings.warn(f"warned of {text}", stacklevel=1)

    with pytest.warns(UserWarning, match="warned of") as caught:
        outcomes_side_by_side(body, [("a",), ("b",)], world_size=1)
    warned = [str(warning.message) for warning in caught]
    assert warned == ["[play 0, rank 0] warned of a", "[play 1, rank 0] warned of b"]
    assert capsys.readouterr().out.splitlines() == ["[play 0, rank 0] a", "[play 1, rank 0] b"]


def test_outcomes_need_a_world_that_can_be(
    outcomes_run: OutcomesRun, outcomes_side_by_side: OutcomesSideBySide
) -> None:
    with pytest.raises(ValueError, match="world_size must be a whole number from 1"):
        outcomes_run(os.getpid, world_size=0)
    with pytest.raises(ValueError, match="world_size must be a whole number from 1"):
        outcomes_side_by_side(os.getpid, [()], world_size=0)


def test_the_limit_of_a_group_can_be_read(distributed_run: DistributedRun) -> None:
    def body() -> tuple[float | None, float | None]:
        device = current_rank().device
        group = dist.new_group(timeout=dist.constants.default_pg_timeout / 4)
        assert dist.group.WORLD is not None
        return process_group_timeout(dist.group.WORLD, device), process_group_timeout(group, device)

    assert distributed_run(body) == [(1800.0, 450.0)] * 2


def test_limits_of_the_options_reach_default_groups_coordinators_and_settings(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import torch, torch.distributed as dist
        from pytest_vdist import current_rank, init_settings, process_group_timeout

        CPU = torch.device("cpu")

        def test_default_group(distributed_run):
            assert distributed_run(lambda: process_group_timeout(dist.group.WORLD, CPU)) == [70.0] * 2

        def test_coordinator(coordinator_run):
            def body(group):
                groups = group.device_group, group.cpu_group
                return [process_group_timeout(each, CPU) for each in groups]

            assert coordinator_run(body) == [[70.0, 7.5]] * 2

        def test_settings(distributed_run):
            def body():
                settings = init_settings("file:///nowhere")
                return settings.timeout, settings.cpu_timeout

            assert distributed_run(body, init_process_group=False) == [(70.0, 7.5)] * 2
        """
    )
    flags = ("--vdist-distributed-timeout-seconds=70", "--vdist-cpu-distributed-timeout-seconds=7.5")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *flags)
    result.assert_outcomes(passed=3)
