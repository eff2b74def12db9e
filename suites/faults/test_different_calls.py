"""A rank comes too late, gives up, or calls something else: nobody gets wrong data, nobody waits on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import pytest
import torch

from pytest_vdist import (
    Capabilities,
    Coordinator,
    CoordinatorRun,
    ImplementationSpec,
    OutcomesRun,
    OutcomesSideBySide,
    RankOutcome,
)
from pytest_vdist.faults.calls import CPU_LIMIT, BlockingCall, call_named, supported_calls
from pytest_vdist.faults.record import Recorder
from pytest_vdist.faults.scene import (
    ROOTS,
    Lived,
    Scene,
    Stage,
    attempt_alone,
    differ,
    end_of,
    root_of_others,
    root_of_peer,
)
from pytest_vdist.faults.verdicts import survivor_problem, unnoticed_problem
from pytest_vdist.faults.waits import TYPED_ERRORS, Ended, Limit

LIMIT = Limit(2.0, slack=5.0)  # as for lost ranks
LIMIT_OF_WATCHDOG = Limit(2.0, slack=20.0)
DEADLINE = 90.0  # beyond the patience of meetings, which say who did not come
# One device call for each fault, where it ends the process.
ALONE = {
    "late": "all_gatherv",
    "gives up": "all_reduce",
    "group": "gather",
    "operation": "reduce_scatter",
}
OPERATIONS: dict[str, Callable[[Coordinator, torch.Tensor], torch.Tensor]] = {
    "all_reduce": lambda group, tensor: group.all_reduce(tensor),
    "all_gather": lambda group, tensor: group.all_gather(tensor, dim=0),
    "reduce_scatter": lambda group, tensor: group.reduce_scatter(tensor, dim=0),
}

pytestmark = pytest.mark.vdist_world_size(min=2, max=3, largest_only=True)


def problems_of(
    fault: str, by_rank: list[Lived], calls: tuple[BlockingCall, ...], peer: int, limit: Limit
) -> list[str]:
    """Judge every call of a fault on every rank, on the one at fault by what that called."""
    size, problems = len(by_rank), []
    for rank, lived in enumerate(by_rank):
        for each in lived.ended:
            if each.name == "gives up":
                continue
            call, at_fault = call_named(each.name), rank == peer
            root = (root_of_peer if at_fault else root_of_others)(call, fault, peer)
            problem = survivor_problem(call, each, limit, world_size=size, rank=rank, peer=root)
            problems.append(problem and f"{fault}, rank {rank}: {problem}")
    if fault in {"operation", "root"}:
        for number, call in enumerate(calls):
            ended = [lived.ended[number] for lived in by_rank]
            problems.append(unnoticed_problem(f"{fault}: {call.name}", ended))
    return [problem for problem in problems if problem]


def checked(capabilities: Capabilities, faults: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out the differences that are declared as unchecked."""
    return tuple(fault for fault in faults if fault not in capabilities.unchecked_calls)


@pytest.mark.vdist_requirement("VD-FLT-002", "VD-FLT-003", "VD-FLT-005")
def test_ranks_that_do_not_do_the_same_get_errors_in_time(  # noqa: PLR0917 - fixtures
    outcomes_run: OutcomesRun,
    outcomes_side_by_side: OutcomesSideBySide,
    implementation: ImplementationSpec,
    capabilities: Capabilities,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
    request: pytest.FixtureRequest,
) -> None:
    """A late rank, one that gives up, another group, operation or root: errors on all, then a new world."""
    table, peer = Recorder(request.node.user_properties), world_size - 1
    abort = capabilities.device_failures == "abort"
    calls = supported_calls(capabilities, CPU_LIMIT if abort else None)
    faults = ("late", "gives up", "group", *checked(capabilities, ("operation", "root")))

    def scene(names: tuple[str, ...], limit: Limit, folder: Path, *, again: bool) -> Scene:
        folder.mkdir()
        return Scene(implementation, split_group, str(folder), peer, limit, names, again)

    # Devices whose failures end the process may also need long, and much memory, for each group.
    plays = [(fault,) for fault in faults] if abort else [faults]
    problems = []
    for played in plays:
        names = tuple(call.name for call in calls)
        of_all = scene(names, LIMIT, tmp_path / "-".join(played), again=True)
        outcomes = outcomes_run(differ, of_all, played, world_size=world_size, timeout=DEADLINE)
        assert [outcome.state for outcome in outcomes] == ["returned"] * world_size, (played, outcomes)
        for fault in played:
            by_rank: list[Lived] = [outcome.value[fault] for outcome in outcomes]
            note_and_assert_world_after(fault, by_rank, peer, table)
            of_fault = tuple(call for call in calls if fault != "root" or call.operation in ROOTS)
            problems += problems_of(fault, by_rank, of_fault, peer, LIMIT)
    assert problems == []
    if not abort:
        return
    alone = [
        (scene((name,), LIMIT_OF_WATCHDOG, tmp_path / f"{fault} alone", again=False), (fault,))
        for fault, name in ALONE.items()
    ]
    of_faults = outcomes_side_by_side(differ, alone, world_size=world_size, timeout=DEADLINE)
    for fault, (of_one, _), outcomes in zip(ALONE, alone, of_faults, strict=True):
        judge_device_call(fault, of_one, outcomes, capabilities.unchecked_calls, table)


def note_and_assert_world_after(fault: str, by_rank: list[Lived], peer: int, table: Recorder) -> None:
    for rank, lived in enumerate(by_rank):
        if rank != peer:
            table.add(fault, rank, lived.ended)
        assert lived.ranks_again == tuple(range(len(by_rank))), f"rank {rank}, in the world after {fault}"


def judge_device_call(
    fault: str, scene: Scene, outcomes: list[RankOutcome], unchecked: Collection[str], table: Recorder
) -> None:
    """Judge the one call of a scene, on the device, which ends the process where it fails."""
    (name,) = scene.calls
    for outcome in outcomes:
        ended = end_of_call(name, fault, outcome, scene.folder)
        table.add(fault, outcome.rank, (ended,))
        where = f"{fault}, rank {outcome.rank}"
        assert ended.seconds <= scene.limit.latest, f"{where}: {ended}"
        if outcome.rank != scene.peer and fault not in unchecked:
            call, size = call_named(name), len(outcomes)
            problem = survivor_problem(
                call, ended, scene.limit, world_size=size, rank=outcome.rank, peer=scene.peer
            )
            assert problem == "", where


def end_of_call(name: str, fault: str, outcome: RankOutcome, folder: str) -> Ended:
    if outcome.state != "returned":
        return end_of(name, outcome, folder)
    lived: Lived = outcome.value[fault]
    return lived.ended[0] if lived.ended else Ended(name, 0.0)


def values_of(name: str, group: Coordinator, tensor: torch.Tensor) -> list[float]:
    result: list[float] = OPERATIONS[name](group, tensor).tolist()
    return result


def call_with(scene: Scene, difference: str) -> Lived:
    """Make calls with a tensor that is larger, or of another dtype, on the peer."""
    stage = Stage(scene)
    groups = [stage.world.coordinator([stage.everyone], name="group") for _ in scene.calls]
    size = 2 * stage.here.world_size
    tensor = torch.ones(size, device=stage.here.device)
    for name, group in zip(scene.calls, groups, strict=True):
        OPERATIONS[name](group, tensor)
    if stage.is_peer and difference == "shape":
        tensor = torch.ones(2 * size, device=stage.here.device)
    if stage.is_peer and difference == "dtype":
        tensor = torch.ones(size, dtype=torch.float64, device=stage.here.device)
    stage.meeting.gather("ready", stage.everyone)
    makes = [
        (name, partial(values_of, name, group, tensor))
        for name, group in zip(scene.calls, groups, strict=True)
    ]
    if len(makes) > 1:
        return Lived(stage.attempt(makes), stage.begin_again(stage.everyone))
    return Lived((attempt_alone(*makes[0], scene.folder),), stage.begin_again(stage.everyone))


@pytest.mark.vdist_requirement("VD-FLT-004")
@pytest.mark.parametrize("difference", ["shape", "dtype"])
def test_tensors_that_differ_end_as_declared(  # noqa: PLR0917 - fixtures
    outcomes_run: OutcomesRun,
    coordinator_run: CoordinatorRun,
    implementation: ImplementationSpec,
    capabilities: Capabilities,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
    difference: str,
    request: pytest.FixtureRequest,
) -> None:
    """Another shape or dtype on one rank is an error on all, or declared as unchecked; all end in time."""
    unchecked = difference in capabilities.unchecked_calls
    limit = LIMIT_OF_WATCHDOG if capabilities.device_failures == "abort" else LIMIT
    names = ("all_reduce",) if unchecked else tuple(OPERATIONS)
    scene = Scene(
        implementation, split_group, str(tmp_path), world_size - 1, limit, names, again=not unchecked
    )
    outcomes = outcomes_run(call_with, scene, difference, world_size=world_size, timeout=DEADLINE)
    table = Recorder(request.node.user_properties)
    for outcome in outcomes:
        found = (
            outcome.value.ended
            if outcome.state == "returned"
            else (end_of(names[0], outcome, str(tmp_path)),)
        )
        table.add(difference, outcome.rank, found)
        for each in found:
            assert each.seconds <= limit.latest, (
                f"rank {outcome.rank}: {each.name} after {each.seconds:.2f} s"
            )
            if not unchecked:
                assert outcome.state == "returned", f"an undeclared end: {outcome}"
                assert TYPED_ERRORS & set(each.kinds), f"rank {outcome.rank}: {each.name} gave {each.value!r}"
    assert coordinator_run(lambda group: group.broadcast_object(7), world_size=world_size) == [7] * world_size


@pytest.mark.vdist_requirement("VD-FLT-004")
def test_declared_differences_have_reasons(capabilities: Capabilities) -> None:
    """What nobody notices is declared with a reason that a reader can act on."""
    for difference, reason in capabilities.unchecked_calls.items():
        assert len(reason.split()) > 3, f"the reason why {difference} is not checked: {reason!r}"
