"""The collectives of torch.distributed, called in a process group: values, order of ranks, roots, memory."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from pytest_vdist.process_groups.calls import REDUCING, ROOTED, Call
from pytest_vdist.process_groups.judgement import GroupRun, assert_calls
from pytest_vdist.process_groups.oracle import REDUCTIONS, has_reduction

Limits = Mapping[str, str]
MOVING = ("all_gather", "all_gather_into_tensor", "all_to_all", "all_to_all_single")
SHAPES = ((1,), (5, 3), (0, 2), (1031,))


@pytest.mark.vdist_requirement("VD-PG-001", "VD-PG-002")
def test_all_reduce_does_every_reduction(
    process_group_run: GroupRun,
    process_group_limits: Limits,
    world_size: int,
    reduction_dtypes: list[torch.dtype],
) -> None:
    """Sums, averages, minima, maxima, products and bitwise reductions of each declared dtype, in place."""
    calls = [
        Call("all_reduce", shape, dtype, reduction=reduction)
        for dtype in reduction_dtypes
        for reduction in REDUCTIONS
        if has_reduction(dtype, reduction)
        for shape in ((67,), (3, 5))
    ]
    assert_calls(process_group_run, calls, world_size=world_size, limits=process_group_limits)


@pytest.mark.vdist_requirement("VD-PG-001", "VD-PG-002", "VD-PG-003")
def test_parts_of_reductions_arrive_at_their_ranks(
    process_group_run: GroupRun, process_group_limits: Limits, world_size: int
) -> None:
    """Lists of tensors and tensors of equal parts are reduced, by every reduction, and rank r has part r."""
    calls = [
        Call(operation, shape, dtype, reduction=reduction, root=world_size - 1)
        for operation in REDUCING
        for dtype in (torch.float32, torch.int32)
        for reduction in REDUCTIONS
        if has_reduction(dtype, reduction)
        for shape in ((2, 3), (129,))
    ]
    calls += [Call(operation, shape) for operation in REDUCING for shape in SHAPES]
    assert_calls(process_group_run, calls, world_size=world_size, limits=process_group_limits)


@pytest.mark.vdist_requirement("VD-PG-004", "VD-PG-005")
def test_parts_arrive_in_the_order_of_ranks(
    process_group_run: GroupRun,
    process_group_limits: Limits,
    world_size: int,
    movement_dtypes: list[torch.dtype],
) -> None:
    """Gathered and exchanged parts of every declared dtype are where they belong, bit by bit."""
    calls = [
        Call(operation, shape, dtype) for operation in MOVING for dtype in movement_dtypes for shape in SHAPES
    ]
    assert_calls(process_group_run, calls, world_size=world_size, limits=process_group_limits)


@pytest.mark.vdist_requirement("VD-PG-004", "VD-PG-005", "VD-PG-002")
def test_parts_may_be_stacked_unequal_or_empty(
    process_group_run: GroupRun, process_group_limits: Limits, world_size: int
) -> None:
    """An output may have a dimension for the rank; lists, and splits of one tensor, may differ in size."""
    calls = [
        Call(operation, shape, dtype, parts="unequal")
        for operation in ("all_gather", "all_to_all", "all_to_all_single")
        for dtype in (torch.float32, torch.bfloat16, torch.uint8)
        for shape in ((1,), (2, 3), (65, 2))
    ]
    calls += [
        Call(operation, (2, 3), dtype, parts="stacked")
        for operation in ("all_gather_into_tensor", "reduce_scatter_tensor")
        for dtype in (torch.float32, torch.int64)
    ]
    assert_calls(process_group_run, calls, world_size=world_size, limits=process_group_limits)


@pytest.mark.vdist_requirement("VD-PG-006")
def test_every_rank_may_be_the_root(
    process_group_run: GroupRun,
    process_group_limits: Limits,
    world_size: int,
    reduction_dtypes: list[torch.dtype],
) -> None:
    """broadcast, reduce, gather and scatter have any rank of the group as their root, by either number."""
    calls = [
        Call(operation, (3, 2), dtype, root=root, root_is_global=is_global)
        for operation in ROOTED
        for root in range(world_size)
        for dtype, is_global in zip(reduction_dtypes, [False, True] * len(reduction_dtypes), strict=False)
    ]
    assert_calls(process_group_run, calls, world_size=world_size, limits=process_group_limits)


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-PG-001", "VD-PG-003", "VD-PG-004", "VD-PG-005", "VD-PG-006")
@pytest.mark.parametrize("group_ranks", [[[0, 2], [1, 3]], [[1, 2, 3], [0]]], ids=["pairs", "uneven"])
def test_subgroups_keep_to_themselves(
    process_group_run: GroupRun,
    process_group_limits: Limits,
    world_size: int,
    group_ranks: list[list[int]],
) -> None:
    """In subgroups the same holds for the ranks within the group, whatever the others do."""
    calls = [
        Call(operation, (2, 3), root=0, root_is_global=is_global)
        for operation in (*REDUCING, *MOVING, "broadcast", "gather", "scatter")
        for is_global in (False, True)
    ]
    assert_calls(
        process_group_run,
        calls,
        world_size=world_size,
        group_ranks=group_ranks,
        limits=process_group_limits,
    )
