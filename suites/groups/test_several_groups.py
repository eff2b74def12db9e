"""Several coordinators in one world: their names, their traffic, and ranks that belong to none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_vdist import (
    Coordinator,
    DistributedRun,
    ImplementationSpec,
    current_rank,
    init_settings,
)

Groups = list[list[int]]
ROUNDS = 6


def layouts(world_size: int) -> list[Groups]:
    """Return lists of groups, three of them over the same ranks."""
    ranks = list(range(world_size))
    middle = world_size // 2
    return [[ranks], [ranks[:middle], ranks[middle:]], [ranks], [ranks[::2], ranks[1::2]], [ranks[::-1]]]


def own_group(groups: Groups, rank: int) -> list[int]:
    return next(ranks for ranks in groups if rank in ranks)


def token(number: int, turn: int, rank: int) -> float:
    """Return a value that no other coordinator, turn or rank uses. Sums of them are exact."""
    return float((ROUNDS * number + turn) * 64 + rank)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-GRP-008")
def test_names_are_unique_and_the_same_on_all_ranks(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """Every coordinator has its own name, which its ranks share, also where one name is asked for twice."""
    names = ["tensor", "tensor", "data", "tensor", "data"]

    def body(init_method: str) -> list[str]:
        world = implementation.load()
        world.init(init_settings(init_method))
        groups = [world.coordinator(g, name=name) for g, name in zip(layouts(world_size), names, strict=True)]
        unique_names = [group.unique_name for group in groups]
        groups[-1].barrier()
        groups[0].destroy()
        last = world.coordinator([list(range(world_size))], name=names[0])
        unique_names.append(last.unique_name)
        last.barrier()
        world.destroy()
        return unique_names

    by_rank = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    for rank, unique_names in enumerate(by_rank):
        assert len(set(unique_names)) == len(unique_names), f"rank {rank} has a name twice: {unique_names}"
    for number, groups in enumerate(layouts(world_size)):
        for ranks in groups:
            shared = {by_rank[rank][number] for rank in ranks}
            assert len(shared) == 1, f"ranks {ranks} of coordinator {number} have the names {shared}"


@pytest.mark.vdist_world_size(min=3)
@pytest.mark.vdist_requirement("VD-GRP-005")
def test_a_rank_in_no_group_is_refused(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """Construction raises an error with the rank and the groups; members and later groups work."""
    members = [world_size - 2, 0]

    def body(init_method: str) -> tuple[str, list[float], list[float], str]:
        world = implementation.load()
        world.init(init_settings(init_method))
        error, gathered = "", [-1.0]
        mine = torch.tensor([float(current_rank().rank)], device=current_rank().device)
        try:
            gathered = world.coordinator([members], name="part").all_gather(mine).tolist()
        except Exception as raised:
            error = str(raised)
        everyone = world.coordinator([list(range(world_size))], name="part")
        all_ranks, name = everyone.all_gather(mine).tolist(), everyone.unique_name
        world.destroy()
        return error, gathered, all_ranks, name

    results = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    for rank, (error, gathered, all_ranks, _) in enumerate(results):
        if rank in members:
            assert (error, gathered) == ("", members), f"rank {rank} is a member"
        else:
            numbers = {int(number) for number in re.findall(r"\d+", error)}
            assert {rank, *members} <= numbers, (
                f"the error must name rank {rank} and {[members]}, got {error!r}"
            )
        assert all_ranks == list(range(world_size))
    assert len({name for *_, name in results}) == 1, "names differ after the refusal"


@pytest.mark.vdist_world_size(min=4, multiple_of=2)
@pytest.mark.vdist_requirement("VD-GRP-009")
def test_groups_in_use_at_the_same_time_do_not_mix(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """Five coordinators, three of them over the same ranks, take turns in changing orders; none mix."""

    def use(group: Coordinator, number: int, turn: int) -> list[Any]:
        mine = torch.tensor([token(number, turn, group.rank)], device=group.device)
        src = turn % group.world_size
        return [
            group.all_reduce(mine.clone()).item(),
            group.all_gather(mine).tolist(),
            group.broadcast_object(float(mine), src=src),
            group.broadcast(mine.clone(), src=src).item(),
        ]

    def body(init_method: str) -> dict[tuple[int, int], list[Any]]:
        world = implementation.load()
        world.init(init_settings(init_method))
        groups = [world.coordinator(g, name="group") for g in layouts(world_size)]
        order = list(range(len(groups)))
        results = {}
        for turn in range(ROUNDS):
            for number in order[turn % len(order) :] + order[: turn % len(order)]:
                results[number, turn] = use(groups[number], number, turn)
        world.destroy()
        return results

    by_rank = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    for rank, results in enumerate(by_rank):
        for number, groups in enumerate(layouts(world_size)):
            for turn in range(ROUNDS):
                values = [token(number, turn, member) for member in own_group(groups, rank)]
                source = values[turn % len(values)]
                assert results[number, turn] == [sum(values), values, source, source], (
                    f"rank {rank}, turn {turn} of coordinator {number}, {groups}"
                )


@pytest.mark.vdist_world_size(min=4, multiple_of=2)
@pytest.mark.vdist_requirement("VD-GRP-009")
def test_one_half_works_while_the_other_does_not(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """The second half makes its calls only once the first has finished its own: neither waits for both."""
    first, second = layouts(world_size)[1]

    def body(init_method: str) -> list[float]:
        world = implementation.load()
        world.init(init_settings(init_method))
        everyone = world.coordinator([first + second], name="everyone")
        half = world.coordinator([first, second], name="half")
        mine = torch.tensor([float(half.rank)], device=half.device)
        if half.rank in second:
            assert everyone.recv_object(src=first[0]) == "your turn"
        results = []
        for src in range(half.world_size):
            results += [float(half.all_reduce(mine.clone())), float(half.broadcast(mine.clone(), src=src))]
            half.barrier()
        if half.rank == first[0]:
            for rank in second:
                everyone.send_object("your turn", dst=rank)
        everyone.barrier()
        world.destroy()
        return results

    by_rank = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    for half in (first, second):
        expected = [value for src in half for value in (sum(half), src)]
        assert [by_rank[rank] for rank in half] == [expected] * len(half)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_operations("isend_object")
@pytest.mark.vdist_requirement("VD-GRP-009")
def test_messages_of_two_groups_over_the_same_ranks_keep_apart(
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
) -> None:
    """Of two messages in flight from one rank, the receiver takes that of the second group first."""
    ranks = list(range(world_size))

    def body(init_method: str) -> list[Any]:
        world = implementation.load()
        world.init(init_settings(init_method))
        one, other = (world.coordinator([ranks], name="same") for _ in range(2))
        received: list[Any] = []
        if one.rank == 0:
            handles = [group.isend_object(text, dst=1) for group, text in ((one, "one"), (other, "other"))]
            for handle in handles:
                handle.wait()
        elif one.rank == 1:
            received = [other.recv_object(src=0), one.recv_object(src=0)]
        one.barrier()
        world.destroy()
        return received

    results = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    assert results[1] == ["other", "one"]
