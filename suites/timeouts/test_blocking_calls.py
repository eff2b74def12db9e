"""Calls for which the other ranks do not come: each ends at the limit that governs it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pytest_vdist import (
    Capabilities,
    DistributedRun,
    ImplementationSpec,
    InitSettings,
    OutcomesSideBySide,
    current_rank,
    init_settings,
)
from pytest_vdist.faults.calls import CPU_LIMIT, DEVICE_LIMIT, BlockingCall, call_named, supported_calls
from pytest_vdist.faults.meeting import Meeting
from pytest_vdist.faults.scene import attempt_alone, end_of
from pytest_vdist.faults.verdicts import timeout_problem, wording_problem
from pytest_vdist.faults.waits import Ended, Limit, attempt_together

# Set-up obeys the limits too. Ranks on a loaded machine come seconds apart, where 0.1 s is usual.
LIMIT = Limit(2.0, slack=5.0)
# A watchdog looks from time to time, writes down what it found, and ends the process: drivers take seconds.
LIMIT_OF_WATCHDOG = Limit(2.0, slack=20.0)
OTHER_LIMIT = 300.0
PATIENCE = LIMIT.latest + 3.0
DEADLINE = 90.0  # beyond the patience of meetings, which say who did not come
PEER = 1

pytestmark = pytest.mark.vdist_world_size(min=2, max=2)


def limited(settings: InitSettings, governing: str) -> InitSettings:
    """Return the settings with the limit that is tested, and another one that nobody reaches."""
    if governing == DEVICE_LIMIT:
        return replace(settings, timeout=LIMIT.seconds, cpu_timeout=OTHER_LIMIT)
    return replace(settings, timeout=OTHER_LIMIT, cpu_timeout=LIMIT.seconds)


def wait_for_a_peer(
    implementation: ImplementationSpec, governing: str, split_group: bool, folder: str
) -> tuple[list[tuple[str, Ended]], int]:
    """Make every call alone on rank 0, all at the same time. Return groups' names and ends, and the rank."""
    here, world = current_rank(), implementation.load()
    everyone = list(range(here.world_size))
    calls = supported_calls(world.capabilities(here.device.type), governing)
    meeting = Meeting(f"{folder}/meeting", here.rank)
    meeting.gather("loaded", everyone)
    settings = replace(init_settings(f"file://{folder}/world"), split_group=split_group)
    world.init(limited(settings, governing))
    # A group is of no use after a timeout, so that each call has one of its own.
    groups = [world.coordinator([everyone], name="group") for _ in calls]
    for call, group in zip(calls, groups, strict=True):
        value = call.make(group, PEER)
        assert value == call.result(here.world_size, here.rank, PEER), f"{call.name} before the test"
    ended: list[Ended] = []
    if here.rank != PEER:
        waits: list[tuple[str, Callable[[], object]]] = [
            (call.name, partial(call.make, group, PEER)) for call, group in zip(calls, groups, strict=True)
        ]
        if governing == CPU_LIMIT:
            waits.append(("a new coordinator", lambda: world.coordinator([everyone], name="alone")))
        ended = attempt_together(waits, here.device, PATIENCE)
    meeting.gather("done", everyone)  # a rank that left earlier would end the other's wait
    world.destroy()
    return list(zip([*(group.unique_name for group in groups), "alone"], ended, strict=False)), here.rank


def assert_ended_in_time(calls: tuple[BlockingCall, ...], by_name: list[tuple[str, Ended]]) -> None:
    problems = [timeout_problem(call, ended, LIMIT) for call, (_, ended) in zip(calls, by_name, strict=True)]
    assert [problem for problem in problems if problem] == []


def assert_named(calls: tuple[BlockingCall, ...], by_name: list[tuple[str, Ended]], rank: int) -> None:
    problems = [
        wording_problem(call, ended, group, rank, LIMIT)
        for call, (group, ended) in zip(calls, by_name, strict=True)
    ]
    assert [problem for problem in problems if problem] == []


@pytest.mark.vdist_requirement("VD-SPL-005", "VD-TMO-001", "VD-TMO-003", "VD-TMO-004")
def test_the_cpu_limit_ends_every_wait_on_the_cpu(  # noqa: PLR0917 - fixtures
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
    capabilities: Capabilities,
) -> None:
    """Barriers, objects, metadata and new groups end at the CPU limit, while that of the device is longer."""
    (found, rank), _ = distributed_run(
        wait_for_a_peer,
        implementation,
        CPU_LIMIT,
        split_group,
        str(tmp_path),
        world_size=world_size,
        init_process_group=False,
        timeout=DEADLINE,
    )
    calls = supported_calls(capabilities, CPU_LIMIT)
    *of_calls, (_, creation) = found
    assert_ended_in_time(calls, of_calls)
    assert_named(calls, of_calls, rank)
    assert creation.raised, f"a coordinator was made without rank {PEER}"
    assert LIMIT.earliest <= creation.seconds <= LIMIT.latest, creation.error
    assert f"[{PEER}]" in creation.error, f"the error must name the absent rank: {creation.error}"


@pytest.mark.vdist_requirement("VD-SPL-005", "VD-TMO-002", "VD-TMO-003", "VD-TMO-004")
def test_the_device_limit_ends_every_wait_on_the_device(  # noqa: PLR0917 - fixtures
    distributed_run: DistributedRun,
    outcomes_side_by_side: OutcomesSideBySide,
    implementation: ImplementationSpec,
    capabilities: Capabilities,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
) -> None:
    """Operations on the device end at the device limit, in an error or with the process, as is declared."""
    calls = supported_calls(capabilities, DEVICE_LIMIT)
    if capabilities.device_failures == "abort":
        assert_processes_end_in_time(calls, outcomes_side_by_side, implementation, tmp_path, split_group)
        return
    (found, rank), _ = distributed_run(
        wait_for_a_peer,
        implementation,
        DEVICE_LIMIT,
        split_group,
        str(tmp_path),
        world_size=world_size,
        init_process_group=False,
        timeout=DEADLINE,
    )
    assert_ended_in_time(calls, found)
    assert_named(calls, found, rank)


def wait_until_the_end(
    implementation: ImplementationSpec, names: tuple[str, ...], split_group: bool, folder: str
) -> Ended:
    """Make one call alone on each rank. Notes when it began, for the case that the process ends."""
    here, world = current_rank(), implementation.load()
    everyone = list(range(here.world_size))
    meeting = Meeting(f"{folder}/meeting", here.rank)
    meeting.gather("loaded", everyone)
    settings = replace(init_settings(f"file://{folder}/world"), split_group=split_group)
    world.init(limited(settings, DEVICE_LIMIT))
    calls = {name: call_named(name) for name in names}
    groups = [world.coordinator([everyone], name="group") for _ in names]
    for number, (name, group) in enumerate(zip(names, groups, strict=True)):
        peer = 1 - number
        assert calls[name].make(group, peer) == calls[name].result(here.world_size, here.rank, peer), name
    own, other = calls[names[here.rank]], 1 - here.rank
    pids = meeting.gather("ready", everyone, str(os.getpid()))
    ended = attempt_alone(own.name, lambda: own.make(groups[here.rank], other), folder)
    # A call that is buffered returns, and then the other rank's wait must end by its own limit.
    meeting.outlast("done", {other: int(pids[other])}, LIMIT_OF_WATCHDOG.latest)
    return ended


def assert_processes_end_in_time(
    calls: tuple[BlockingCall, ...],
    outcomes_side_by_side: OutcomesSideBySide,
    implementation: ImplementationSpec,
    folder: Path,
    split_group: bool,
) -> None:
    pairs = [(calls[first], calls[(first + 1) % len(calls)]) for first in range(0, len(calls), 2)]
    places = [folder / "-".join(call.name for call in pair) for pair in pairs]
    for place in places:
        place.mkdir()
    plays = [
        (implementation, tuple(call.name for call in pair), split_group, str(place))
        for pair, place in zip(pairs, places, strict=True)
    ]
    of_pairs = outcomes_side_by_side(wait_until_the_end, plays, world_size=2, timeout=DEADLINE)
    problems = []
    for pair, place, outcomes in zip(pairs, places, of_pairs, strict=True):
        for call, outcome in zip(pair, outcomes, strict=True):
            ended = outcome.value if outcome.state == "returned" else end_of(call.name, outcome, str(place))
            problems.append(timeout_problem(call, ended, LIMIT_OF_WATCHDOG))
    assert [problem for problem in problems if problem] == []
