"""A rank exits, is killed or is stopped: the others get an error within their limit, and can begin again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_vdist import (
    Capabilities,
    CoordinatorRun,
    ImplementationSpec,
    OutcomesRun,
    OutcomesSideBySide,
    RankOutcome,
)
from pytest_vdist.faults.calls import CPU_LIMIT, BlockingCall, call_named, supported_calls
from pytest_vdist.faults.record import Recorder
from pytest_vdist.faults.scene import Scene, end_of, lose_a_rank
from pytest_vdist.faults.verdicts import survivor_problem
from pytest_vdist.faults.waits import Ended, Limit

# Set-up obeys the limit too; ranks on a loaded machine come seconds apart, where 0.1 s is usual.
LIMIT = Limit(2.0, slack=5.0)
# A watchdog looks from time to time, writes down what it found, and ends the process: drivers take seconds.
LIMIT_OF_WATCHDOG = Limit(2.0, slack=20.0)
DEADLINE = 90.0  # beyond the patience of meetings, which say who did not come
FAULTS = {
    "exits": "its process exited with code 7",
    "killed": "killed by SIGKILL",
    "stopped": "",
}
# Where a failing device operation ends the process, each takes ranks of its own: some for each fault.
ALONE = {
    "exits": ("all_gather",),
    "killed": ("all_reduce", "broadcast", "recv"),
    "stopped": ("reduce_scatterv",),
}

pytestmark = pytest.mark.vdist_world_size(min=2, max=3, largest_only=True)


@pytest.mark.vdist_requirement("VD-FLT-001", "VD-FLT-005")
@pytest.mark.parametrize("fault", FAULTS)
def test_the_survivors_of_a_lost_rank_get_errors_in_time(  # noqa: PLR0917 - fixtures
    outcomes_run: OutcomesRun,
    outcomes_side_by_side: OutcomesSideBySide,
    coordinator_run: CoordinatorRun,
    implementation: ImplementationSpec,
    capabilities: Capabilities,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
    fault: str,
    request: pytest.FixtureRequest,
) -> None:
    """Every call on every survivor ends in an error within the limit; a world without the lost rank works."""
    table = Recorder(request.node.user_properties)
    abort = capabilities.device_failures == "abort"
    calls = supported_calls(capabilities, CPU_LIMIT if abort else None)
    peer = world_size - 1

    def scene(names: tuple[str, ...], folder: str, limit: Limit, *, again: bool) -> Scene:
        (tmp_path / folder).mkdir()
        return Scene(implementation, split_group, str(tmp_path / folder), peer, limit, names, again)

    everything = scene(tuple(call.name for call in calls), "all", LIMIT, again=True)
    outcomes = outcomes_run(lose_a_rank, everything, fault, world_size=world_size, timeout=DEADLINE)
    assert_lost(outcomes[peer], fault)
    left = [outcome.rank for outcome in outcomes if outcome.state == "returned"]
    assert left == [rank for rank in range(world_size) if rank != peer or fault == "stopped"], outcomes
    for outcome in (outcomes[rank] for rank in left):
        assert_survived(calls, outcome.value.ended, LIMIT, outcome.rank, peer, world_size, table, fault)
        assert list(outcome.value.ranks_again) == left, (
            f"rank {outcome.rank}, in the world without the lost rank"
        )
    if not abort:
        return
    plays = [(scene((name,), name, LIMIT_OF_WATCHDOG, again=False), fault) for name in ALONE[fault]]
    of_plays = outcomes_side_by_side(lose_a_rank, plays, world_size=world_size, timeout=DEADLINE)
    for name, outcomes in zip(ALONE[fault], of_plays, strict=True):
        assert_lost(outcomes[peer], fault)
        for outcome in outcomes[:peer]:
            ended = (
                [end_of(name, outcome, str(tmp_path / name))]
                if outcome.state != "returned"
                else outcome.value.ended
            )
            one = (call_named(name),)
            assert_survived(one, ended, LIMIT_OF_WATCHDOG, outcome.rank, peer, world_size, table, fault)
    assert coordinator_run(lambda group: group.broadcast_object(7), world_size=world_size) == [7] * world_size


def assert_lost(outcome: RankOutcome, fault: str) -> None:
    """Look whether the runner says of the lost rank what happened to it."""
    expected = FAULTS[fault]
    if expected:
        assert (outcome.state, outcome.reason) == ("died", expected)
    else:
        assert outcome.state in {"returned", "died"}, outcome


def assert_survived(  # noqa: PLR0917 - what the message names
    calls: tuple[BlockingCall, ...],
    ended: Any,
    limit: Limit,
    rank: int,
    peer: int,
    world_size: int,
    table: Recorder,
    fault: str,
) -> None:
    found: tuple[Ended, ...] = tuple(ended)
    table.add(fault, rank, found)
    problems = [
        survivor_problem(call, each, limit, world_size=world_size, rank=rank, peer=peer)
        for call, each in zip(calls, found, strict=True)
    ]
    assert [problem for problem in problems if problem] == [], f"rank {rank}, rank {peer} {fault}"
