"""barrier: nobody goes on before everybody in the group has come."""

from __future__ import annotations

import os
import time

import pytest
import torch

from pytest_vdist import Coordinator, CoordinatorRun

ROUNDS = 3
STEPS_OF_THE_LATE_RANK = 1_200_000  # some 20 ms, so that a loaded machine makes no other rank as late

Stamps = list[tuple[int, int]]
"""Clock readings in nanoseconds before and after each barrier. The ranks share a host, hence a clock."""


def barriers_with_one_late_rank(group: Coordinator) -> Stamps:
    """Pass barriers that every rank in turn enters late, after work."""
    stamps = []
    for turn in range(ROUNDS * group.world_size):
        if turn % group.world_size == group.rank_in_group:
            sum(range(STEPS_OF_THE_LATE_RANK))
        entered = time.monotonic_ns()
        group.barrier()
        stamps.append((entered, time.monotonic_ns()))
    return stamps


def left_too_early(by_rank: list[Stamps]) -> list[int]:
    """Return the numbers of the barriers that a rank left before another had entered."""
    return [
        number
        for number, stamps in enumerate(zip(*by_rank, strict=True))
        if min(left for _, left in stamps) < max(entered for entered, _ in stamps)
    ]


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-BAR-001")
def test_nobody_leaves_before_all_have_entered(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """The first rank to leave a barrier leaves after the last has entered it, whichever rank is late."""
    by_rank: list[Stamps] = coordinator_run(barriers_with_one_late_rank, world_size=world_size)
    assert [len(stamps) for stamps in by_rank] == [ROUNDS * world_size] * world_size
    assert left_too_early(by_rank) == []


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-BAR-001")
def test_nobody_leaves_before_all_of_the_subgroup_have_entered(
    coordinator_run: CoordinatorRun, world_size: int
) -> None:
    """The barrier of ranks 0 and 2, and that of ranks 1 and 3, hold for the ranks of that group."""
    groups = [[0, 2], [1, 3]]
    by_rank: list[Stamps] = coordinator_run(
        barriers_with_one_late_rank, world_size=world_size, group_ranks=groups
    )
    for group in groups:
        assert left_too_early([by_rank[rank] for rank in group]) == []


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-BAR-002")
@pytest.mark.parametrize("number", [0, 1])
def test_nobody_waits_for_ranks_of_another_group(
    coordinator_run: CoordinatorRun, world_size: int, number: int
) -> None:
    """The ranks of one group pass their barrier though those of the other group never enter one."""
    groups = [[0, 2], [1, 3]]

    def body(group: Coordinator) -> bool:
        if group.rank not in groups[number]:
            return False
        group.barrier()
        return True

    passed = coordinator_run(body, world_size=world_size, group_ranks=groups)
    assert passed == [rank in groups[number] for rank in range(world_size)]


@pytest.mark.vdist_requirement("VD-BAR-003")
def test_a_lone_rank_waits_for_nobody(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Each rank passes as many barriers of its own group of one as it likes, each rank another number."""

    def body(group: Coordinator) -> int:
        for _ in range(1 + group.rank):
            group.barrier()
        return 1 + group.rank

    lone = [[rank] for rank in range(world_size)]
    passed = coordinator_run(body, world_size=world_size, group_ranks=lone)
    assert passed == [1 + rank for rank in range(world_size)]


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_operations("send")
@pytest.mark.vdist_requirement("VD-BAR-004")
def test_barriers_mix_with_other_operations(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Collectives and messages before, between and after barriers arrive as they would without them."""

    def body(group: Coordinator) -> list[list[float]]:
        own, size = group.rank_in_group, group.world_size
        tensor = torch.arange(4.0, device=group.device) + 10 * own
        found = []
        for src in range(size):
            dst = (src + 1) % size
            group.barrier()
            found.append(group.all_reduce(tensor))
            group.barrier()
            if own == src:
                group.send(tensor, dst=dst)
            elif own == dst:
                found.append(group.recv(tensor.shape, tensor.dtype, src=src))
            group.barrier()
            group.barrier()
            found.append(group.broadcast(tensor.clone(), src=src))
            found.append(torch.tensor([float(group.broadcast_object(100 + own, src=src))]))
            group.barrier()
            found.append(group.all_gather(tensor))
        group.barrier()
        return [each.tolist() for each in found]

    inputs = [[value + 10.0 * rank for value in range(4)] for rank in range(world_size)]
    total = [sum(column) for column in zip(*inputs, strict=True)]
    joined = [value for each in inputs for value in each]
    for rank, found in enumerate(coordinator_run(body, world_size=world_size)):
        expected = []
        for src in range(world_size):
            received = [inputs[src]] if rank == (src + 1) % world_size else []
            expected += [total, *received, inputs[src], [100.0 + src], joined]
        assert found == expected, f"rank {rank}"


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-BAR-005")
def test_repeated_barriers_leave_nothing_open(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """After the first few barriers, further ones open no files and start no threads that stay."""

    def in_use() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    def body(group: Coordinator) -> list[tuple[int, int]]:
        for _ in range(5):
            group.barrier()
        before = in_use()
        for _ in range(50):
            group.barrier()
        return [before, in_use()]

    for rank, (before, after) in enumerate(coordinator_run(body, world_size=world_size)):
        assert after[0] <= before[0], f"open files of rank {rank}"
        assert after[1] <= before[1], f"threads of rank {rank}"
