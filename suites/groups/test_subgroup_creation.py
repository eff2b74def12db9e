"""Groups by new_group and by split_group: the same members, order and results, whatever was made before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import (
    Capabilities,
    Coordinator,
    DistributedRun,
    ImplementationSpec,
    current_rank,
    init_settings,
)

Groups = list[list[int]]
TURNS = 3
CYCLES = 3


def layouts(world_size: int) -> list[Groups]:
    """Return groups of all ranks, of neighbours, of strides, in descending order, uneven, of one rank."""
    ranks = list(range(world_size))
    half = world_size // 2
    return [
        [ranks],
        [ranks[:half], ranks[half:]],
        [ranks[::2], ranks[1::2]],
        [ranks[::-1]],
        [ranks[half:][::-1], ranks[:half][::-1]],
        [ranks[:1], ranks[1:half], ranks[half:]],
        [[rank] for rank in ranks],
    ]


def own_group(groups: Groups, rank: int) -> list[int]:
    return next(ranks for ranks in groups if rank in ranks)


def token(number: int, turn: int, rank: int) -> float:
    """Return a value that no other coordinator, turn or rank uses. Sums of them are exact."""
    return float((TURNS * number + turn) * 64 + rank)


def use(group: Coordinator, number: int, turn: int, capabilities: Capabilities) -> dict[str, Any]:
    """Make a call of every kind that there is, of which some use the device and some the CPU."""
    mine = torch.tensor([token(number, turn, group.rank)], device=group.device)
    src = turn % group.world_size
    results: dict[str, Any] = {
        "ranks": (group.ranks, group.rank_in_group, group.world_size),
        "all_reduce": group.all_reduce(mine.clone()).item(),
        "object": group.broadcast_object(group.rank, src=src),
        "all_gather": group.all_gather(mine).tolist(),
    }
    if capabilities.supports("broadcast_tensor_dict"):
        own = {"tensor": mine, "on_cpu": mine.cpu(), "rank": group.rank}
        received = group.broadcast_tensor_dict(own if group.rank_in_group == src else None, src=src)
        assert received is not None
        results["broadcast_tensor_dict"] = (
            received["tensor"].item(),
            received["on_cpu"].item(),
            received["rank"],
        )
    group.barrier()
    scattered = group.reduce_scatter(mine.repeat(group.world_size)).tolist()
    if capabilities.supports("send") and group.world_size > 1:
        results["send"] = pass_on(group, mine)
    if capabilities.supports("isend_object") and group.world_size > 1:
        results["isend_object"] = pass_object_on(group)
    return results | {
        "reduce_scatter": scattered,
        "broadcast": group.broadcast(mine.clone(), src=src).item(),
    }


def pass_on(group: Coordinator, tensor: torch.Tensor) -> list[float]:
    """Send a tensor to the next rank. Return what came from the previous one."""
    if group.rank_in_group == 0:
        group.send(tensor)
    received: list[float] = group.recv(tensor.shape, tensor.dtype).tolist()
    if group.rank_in_group != 0:
        group.send(tensor)
    return received


def pass_object_on(group: Coordinator) -> int:
    """Send an object to the next rank. Return what came from the previous one."""
    handle = group.isend_object(group.rank, (group.rank_in_group + 1) % group.world_size)
    sender: int = group.recv_object((group.rank_in_group - 1) % group.world_size)
    handle.wait()
    return sender


def expected(
    ranks: list[int], rank: int, number: int, turn: int, capabilities: Capabilities
) -> dict[str, Any]:
    values = [token(number, turn, member) for member in ranks]
    place = ranks.index(rank)
    source, previous = turn % len(ranks), place - 1
    where_declared: dict[str, Any] = {
        "broadcast_tensor_dict": (values[source], values[source], ranks[source])
    }
    if len(ranks) > 1:
        where_declared |= {"send": [values[previous]], "isend_object": ranks[previous]}
    return {call: value for call, value in where_declared.items() if capabilities.supports(call)} | {
        "ranks": (ranks, place, len(ranks)),
        "all_reduce": sum(values),
        "object": ranks[source],
        "all_gather": values,
        "reduce_scatter": [sum(values)],
        "broadcast": values[source],
    }


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-SPL-001", "VD-GRP-009")
def test_groups_of_every_layout_work_side_by_side(  # noqa: PLR0917 - fixtures
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
    capabilities: Capabilities,
) -> None:
    """Coordinators of every layout take turns in changing orders; members, order and results are right."""
    wanted = [groups for groups in layouts(world_size) if all(groups)]

    def body(init_method: str) -> dict[tuple[int, int], dict[str, Any]]:
        world = implementation.load()
        world.init(replace(init_settings(init_method), split_group=split_group))
        made = [world.coordinator(groups, name="group") for groups in wanted]
        order = list(range(len(made)))
        results = {}
        for turn in range(TURNS):
            for number in order[turn:] + order[:turn]:
                results[number, turn] = use(made[number], number, turn, capabilities)
        world.destroy()
        return results

    by_rank = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    for rank, results in enumerate(by_rank):
        for number, groups in enumerate(wanted):
            for turn in range(TURNS):
                right = expected(own_group(groups, rank), rank, number, turn, capabilities)
                assert results[number, turn] == right, f"rank {rank}, turn {turn} of {groups}"


@pytest.mark.vdist_world_size(min=2, multiple_of=2)
@pytest.mark.vdist_requirement("VD-SPL-002", "VD-GRP-005")
def test_a_rank_that_is_left_out_takes_no_part(
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
) -> None:
    """Ranks in no group are refused; what the members do meanwhile reaches neither them nor the world."""
    members = list(range(world_size // 2, world_size))

    def body(init_method: str) -> tuple[str, list[float], list[float]]:
        world = implementation.load()
        world.init(replace(init_settings(init_method), split_group=split_group))
        here = current_rank()
        mine = torch.tensor([here.rank + 1.0], device=here.device)
        error, inside = "", [-1.0]
        try:
            group = world.coordinator([members], name="part")
        except Exception as raised:
            error = str(raised) or type(raised).__name__
        else:
            inside = [group.all_reduce(mine.clone()).item(), float(group.broadcast_object(group.rank))]
        everyone = world.coordinator([list(range(world_size))], name="everyone")
        outside = everyone.all_gather(mine).tolist()
        world.destroy()
        return error, inside, outside

    by_rank = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    for rank, (error, inside, outside) in enumerate(by_rank):
        if rank in members:
            assert (error, inside) == ("", [sum(members) + len(members), members[0]]), f"member {rank}"
        else:
            assert error, f"rank {rank} is in no group, and nothing refused it"
        assert outside == [other + 1.0 for other in range(world_size)]


@pytest.mark.vdist_world_size(min=2, multiple_of=2)
@pytest.mark.vdist_requirement("VD-SPL-006")
def test_the_same_groups_are_made_again_and_again(
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
) -> None:
    """Groups over the same ranks work when they are made anew after their destruction, while others live."""
    ranks = list(range(world_size))
    halves = [ranks[: world_size // 2], ranks[world_size // 2 :]]

    def body(init_method: str) -> list[list[float]]:
        world = implementation.load()
        world.init(replace(init_settings(init_method), split_group=split_group))
        survivor = world.coordinator([ranks], name="survivor")
        mine = torch.tensor([float(survivor.rank)], device=survivor.device)
        gathered = []
        for cycle in range(CYCLES):
            half = world.coordinator(halves, name="half")
            everyone = world.coordinator([ranks], name="everyone")
            gathered.append(half.all_gather(mine + cycle).tolist())
            gathered.append(everyone.all_gather(mine + cycle).tolist())
            assert half.broadcast_object(half.rank, src=0) == half.ranks[0]
            everyone.barrier()
            half.destroy()
            everyone.destroy()
        gathered.append(survivor.all_gather(mine).tolist())
        survivor.barrier()
        world.destroy()
        return gathered

    by_rank = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    for rank, gathered in enumerate(by_rank):
        cycles = [
            [float(member + cycle) for member in members]
            for cycle in range(CYCLES)
            for members in (own_group(halves, rank), ranks)
        ]
        assert gathered == [*cycles, ranks], f"rank {rank}"


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-SPL-007")
def test_groups_of_the_caller_work_before_and_after(
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
) -> None:
    """Groups that the caller makes by new_group, some on a part of the ranks, work beside coordinators.

    The ranks then hold different numbers of groups, of which later groups of all ranks take no notice.
    """
    ranks = list(range(world_size))

    def reduced(group: dist.ProcessGroup) -> float:
        here = current_rank()
        tensor = torch.tensor([here.rank + 1.0], device=here.device)
        dist.all_reduce(tensor, group=group)
        return tensor.item()

    def body(init_method: str) -> list[Any]:
        world = implementation.load()
        world.init(replace(init_settings(init_method), split_group=split_group))
        results: list[Any] = []
        first_alone = dist.new_group(ranks[:1])
        early = world.coordinator([ranks], name="early")
        mine = torch.tensor([early.rank + 1.0], device=early.device)
        results.append(early.all_reduce(mine.clone()).item())
        between = dist.new_group(ranks)
        results.append(reduced(between))
        alone = world.coordinator([[rank] for rank in ranks], name="alone")
        results.append(alone.all_reduce(mine.clone()).item())
        last_alone = dist.new_group(ranks[-1:])
        late = world.coordinator([ranks[::-1]], name="late")
        results += [late.all_gather(mine).tolist(), late.broadcast_object(late.rank, src=0)]
        if early.rank == ranks[0]:
            results.append(reduced(first_alone))
        if early.rank == ranks[-1]:
            results.append(reduced(last_alone))
        results.append(early.all_gather(mine).tolist())
        late.barrier()
        world.destroy()
        return results

    by_rank = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    values = [rank + 1.0 for rank in ranks]
    for rank, results in enumerate(by_rank):
        by_themselves = [rank + 1.0] * ((rank == ranks[0]) + (rank == ranks[-1]))
        common = [sum(values), sum(values), rank + 1.0, values[::-1], ranks[-1]]
        assert results == [*common, *by_themselves, values], f"rank {rank}"
