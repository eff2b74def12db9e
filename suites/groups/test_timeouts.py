"""How long the groups of a coordinator wait for a rank that does not come."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pytest_vdist import (
    Coordinator,
    DistributedRun,
    ImplementationSpec,
    RankDiedError,
    current_rank,
    init_settings,
)

LIMIT = 2.0
OTHER_LIMIT = 300.0
DEADLINE = 30.0
# Backends that end the process write down first what they were doing; NCCL takes 15 seconds for that.
DEADLINE_OF_DEVICE = 90.0
KINDS = ("barrier", "object")
EARLIEST, LATEST = 0.9 * LIMIT, 5 * LIMIT


def wait_alone(kind: str, group: Coordinator, tensor: torch.Tensor) -> tuple[str, float]:
    """Make a call that no other rank makes. Return the error's text and the seconds until it came."""
    start = time.monotonic()
    try:
        if kind == "barrier":
            group.barrier()
        elif kind == "object":
            group.recv_object((group.rank_in_group + 1) % group.world_size)
        else:
            group.all_reduce(tensor).tolist()
    except Exception as error:
        return str(error) or type(error).__name__, time.monotonic() - start
    return "", time.monotonic() - start


def assert_ended_in_time(by_rank: list[tuple[str, float]], kinds: tuple[str, str]) -> None:
    for rank, (kind, (error, seconds)) in enumerate(zip(kinds, by_rank, strict=True)):
        assert error, f"rank {rank}: {kind} returned though no other rank took part"
        assert EARLIEST <= seconds <= LATEST, (
            f"rank {rank}: {kind} ended after {seconds:.2f} s with a limit of {LIMIT} s: {error}"
        )


@pytest.mark.vdist_world_size(min=2, max=2)
@pytest.mark.vdist_requirement("VD-SPL-005")
def test_the_cpu_timeout_ends_waits_on_the_cpu(
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
) -> None:
    """A barrier and an object for which a rank waits alone end in an error at the CPU timeout, no sooner."""
    ranks = list(range(world_size))

    def body(init_method: str) -> tuple[str, float]:
        world = implementation.load()
        settings = replace(init_settings(init_method), split_group=split_group)
        world.init(replace(settings, timeout=OTHER_LIMIT, cpu_timeout=LIMIT))
        # Each rank waits in a group of its own, both at the same time: a group is of no use afterwards.
        groups = [world.coordinator([ranks], name="group") for _ in ranks]
        own = groups[current_rank().rank]
        last = world.coordinator([ranks], name="last")
        ended = wait_alone(KINDS[own.rank], own, torch.ones(3, device=own.device))
        last.barrier()  # a rank that left earlier would end the other's wait
        world.destroy()
        return ended

    by_rank = distributed_run(
        body,
        f"file://{tmp_path}/world",
        world_size=world_size,
        init_process_group=False,
        timeout=DEADLINE,
    )
    assert_ended_in_time(by_rank, KINDS)


@pytest.mark.vdist_world_size(min=2, max=2)
@pytest.mark.vdist_requirement("VD-SPL-005")
def test_the_device_timeout_ends_waits_on_the_device(
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
) -> None:
    """Ranks that wait alone for a sum get an error at the device timeout, or their process ends by then."""
    ranks = list(range(world_size))

    def body(init_method: str) -> tuple[str, float]:
        world = implementation.load()
        settings = replace(init_settings(init_method), split_group=split_group)
        world.init(replace(settings, timeout=LIMIT, cpu_timeout=OTHER_LIMIT))
        groups = [world.coordinator([ranks], name="group") for _ in ranks]
        own = groups[current_rank().rank]
        tensor = torch.ones(3, device=own.device)
        for group in groups:
            assert group.all_reduce(tensor).tolist() == [world_size] * 3
        last = world.coordinator([ranks], name="last")
        ended = wait_alone("all_reduce", own, tensor)
        last.barrier()  # a rank that left earlier would end the other's wait
        world.destroy()
        return ended

    try:
        by_rank = distributed_run(
            body,
            f"file://{tmp_path}/world",
            world_size=world_size,
            init_process_group=False,
            timeout=DEADLINE_OF_DEVICE,
        )
    except RankDiedError:
        return  # the other way to end a wait; a rank that goes on waiting is reported as hung
    assert_ended_in_time(by_rank, ("all_reduce", "all_reduce"))
