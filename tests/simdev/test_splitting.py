"""Groups that are split off a group of simdev, on both legs: simccl for the device, gloo for the CPU."""

from __future__ import annotations

import copy
import inspect
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import DistributedRun, current_rank
from pytest_vdist.reference_impl.simdev.extension import extension

from .operands import WORLD, all_gather_single

needs_splitting = pytest.mark.skipif(
    "backend" not in inspect.signature(dist.split_group).parameters,
    reason="this torch splits CUDA groups only",
)


def init() -> None:
    dist.init_process_group("cpu:gloo,simdev:simccl", device_id=current_rank().device)
    # Up to torch 2.13 gloo crashes where a process splits its second default group: pytorch/pytorch#192109
    gloo: Any = dist.group.WORLD._get_backend(torch.device("cpu"))  # type: ignore[union-attr]
    gloo.options.global_ranks_in_group = list(range(dist.get_world_size()))


def seen_on_both_legs(group: dist.ProcessGroup | None) -> list[list[float]] | None:
    """Return the members' world ranks in order, gathered by each leg of a group; None without a group."""
    if not isinstance(group, dist.ProcessGroup):
        return None
    seen = []
    for device in (current_rank().device, torch.device("cpu")):
        gathered = torch.zeros(group.size(), device=device)
        all_gather_single(gathered, torch.tensor([float(dist.get_rank())], device=device), group=group)
        total = torch.tensor([float(dist.get_rank())], device=device)
        dist.all_reduce(total, group=group)
        assert total.item() == gathered.sum().item()
        seen.append(gathered.tolist())
    return seen


@needs_splitting
@pytest.mark.parametrize(
    "partition",
    [[[0, 1, 2, 3]], [[0, 1], [2, 3]], [[0, 2], [1, 3]], [[0], [1, 2, 3]], [[0], [1], [2], [3]], [[1, 3]]],
    ids=str,
)
def test_every_rank_gets_the_part_that_it_is_in(
    distributed_run: DistributedRun, partition: list[list[int]]
) -> None:
    def body() -> list[list[float]] | None:
        init()
        return seen_on_both_legs(dist.split_group(split_ranks=partition))

    for rank, seen in enumerate(distributed_run(body, init_process_group=False)):
        own = next((part for part in partition if rank in part), None)
        assert seen == (None if own is None else [own, own])


@needs_splitting
def test_a_split_group_is_split_again_by_its_own_ranks(distributed_run: DistributedRun) -> None:
    def body() -> list[Any]:
        init()
        odd_and_even = dist.split_group(split_ranks=[[1, 3], [0, 2]])
        world_before = seen_on_both_legs(dist.group.WORLD)
        alone = dist.split_group(odd_and_even, split_ranks=[[0], [1]])
        three = dist.split_group(split_ranks=[[0, 1, 3]])
        last_two = None if three is None else dist.split_group(three, split_ranks=[[1, 2]])
        groups = [odd_and_even, alone, three, last_two]
        return [world_before, *(seen_on_both_legs(group) for group in groups)]

    for rank, seen in enumerate(distributed_run(body, init_process_group=False)):
        members = [list(range(WORLD)), [rank % 2, rank % 2 + 2], [rank]]
        members += [[0, 1, 3]] if rank != 2 else [None]  # type: ignore[list-item]
        members += [[1, 3]] if rank in {1, 3} else [None]  # type: ignore[list-item]
        assert seen == [None if ranks is None else [ranks, ranks] for ranks in members]


@needs_splitting
def test_groups_that_are_split_and_made_live_side_by_side(distributed_run: DistributedRun) -> None:
    def body() -> list[Any]:
        init()
        split = dist.split_group(split_ranks=[[0, 1], [2, 3]])
        made = [dist.new_group(ranks) for ranks in ([0, 3], [1, 2])]
        again = dist.split_group(split_ranks=[[0, 1], [2, 3]])
        return [seen_on_both_legs(group) for group in (again, *made, split)]

    for rank, seen in enumerate(distributed_run(body, init_process_group=False)):
        pair = [0, 1] if rank < 2 else [2, 3]
        made = [[0, 3] if rank in {0, 3} else None, [1, 2] if rank in {1, 2} else None]
        assert seen == [None if ranks is None else [ranks, ranks] for ranks in (pair, *made, pair)]


@needs_splitting
def test_the_timeout_of_a_split_is_that_of_its_device_leg(distributed_run: DistributedRun) -> None:
    def body() -> tuple[float, float, list[int]]:
        init()
        device = current_rank().device
        group = dist.split_group(split_ranks=[[0, 1], [3, 2]], timeout=timedelta(seconds=7))
        assert group is not None
        parent: Any = dist.group.WORLD._get_backend(device)  # type: ignore[union-attr]
        child: Any = group._get_backend(device)
        seconds = [backend.options._timeout.total_seconds() for backend in (parent, child)]
        return seconds[0], seconds[1], child.options.global_ranks_in_group

    results = distributed_run(body, init_process_group=False)
    assert [result[:2] for result in results] == [(1800.0, 7.0)] * WORLD
    assert [sorted(result[2]) for result in results] == [[0, 1], [0, 1], [2, 3], [2, 3]]


def test_options_are_copied_whole(distributed_run: DistributedRun) -> None:
    def body() -> list[Any]:
        options = extension().SimcclOptions(timedelta(seconds=3))
        options.group_name, options.global_ranks_in_group = "name", [3, 1]
        copies = [copy.copy(options), copy.deepcopy(options)]
        options._timeout, options.global_ranks_in_group = timedelta(seconds=4), []
        return [
            (type(each).__name__, each.backend, each._timeout, each.group_name, each.global_ranks_in_group)
            for each in copies
        ]

    copied = ("SimcclOptions", "simccl", timedelta(seconds=3), "name", [3, 1])
    assert distributed_run(body, world_size=1, init_process_group=False) == [[copied, copied]]


def test_options_of_another_backend_are_refused(distributed_run: DistributedRun) -> None:
    def body() -> str:
        dist.init_process_group("simccl")
        try:
            dist.new_group(pg_options=dist.ProcessGroupGloo._Options())  # type: ignore[attr-defined]
        except TypeError as error:
            return str(error).split(" got")[0]
        return "no error"

    found = distributed_run(body, world_size=2, init_process_group=False)
    assert found == ["pg_options must be a SimcclOptions or None,"] * 2
