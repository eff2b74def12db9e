"""all_gatherv: tensors that differ in size along one dimension, joined on every rank."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from pytest_vdist import Coordinator, CoordinatorRun
from pytest_vdist.judge import LAYOUTS, Observation, guard, layout_fits, observe
from pytest_vdist.judge.cases import Case, assert_cases, assert_results_stay_apart, judge
from pytest_vdist.judge.series import assert_series

SHAPES = [(5,), (5, 3), (2, 5, 3), (3, 2, 5, 7), (2, 1, 2, 3, 2)]
DIMS = [(shape, dim) for shape in SHAPES for dim in range(-len(shape), len(shape))]


def growing(world_size: int) -> list[int]:
    return [1 + 2 * rank for rank in range(world_size)]


def sizes_with_zeros(world_size: int) -> list[list[int]]:
    """All sizes zero, each rank alone zero, each rank alone not zero."""
    return [
        [0] * world_size,
        *([0 if rank == alone else 2 + rank for rank in range(world_size)] for alone in range(world_size)),
        *([3 if rank == alone else 0 for rank in range(world_size)] for alone in range(world_size)),
    ]


@pytest.mark.vdist_requirement("VD-AGV-001", "VD-AGV-005", "VD-AGV-008")
def test_parts_of_any_size_are_joined_along_every_dimension(
    coordinator_run: CoordinatorRun, world_size: int
) -> None:
    """Every rank gets the parts in the order of the ranks, along every dimension, by default the first."""
    up, down = growing(world_size), growing(world_size)[::-1]
    cases = [
        Case("all_gatherv", shape, dtype, {"dim": dim, "sizes": sizes}, values="movement")
        for shape, dim in DIMS
        for sizes, dtype in ((up, torch.float32), (down, torch.uint8))
    ]
    cases += [
        Case("all_gatherv", shape, torch.float32, {"sizes": down}, values="movement") for shape in SHAPES
    ]
    large = [262147, 1, 4099, 127][:world_size]
    cases += [Case("all_gatherv", (1,), torch.float32, {"sizes": large}, values="movement")]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-AGV-002")
def test_ranks_without_rows_add_nothing(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """A rank with size zero takes part and gets what the others have, whichever rank it is."""
    cases = [
        Case("all_gatherv", (4, 3), torch.float32, {"dim": dim, "sizes": sizes}, values="movement")
        for sizes in sizes_with_zeros(world_size)
        for dim in (0, -1)
    ]
    cases += [Case("all_gatherv", (4, 0), torch.float32, {"sizes": growing(world_size)}, values="movement")]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-AGV-003", "VD-AGV-005", "VD-AGV-008")
def test_equal_parts_are_gathered_as_by_all_gather(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Without sizes, and with equal sizes, the result is that of all_gather."""
    cases = [
        Case("all_gatherv", shape, torch.float32, {"dim": dim, "sizes": sizes}, values="movement")
        for shape, dim in DIMS
        for sizes in (None, [shape[dim]] * world_size)
    ]
    cases += [
        Case("all_gatherv", shape, torch.float32, values="movement") for shape in [*SHAPES, (0, 3), (3, 0)]
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-AGV-004", "VD-AGV-002", "VD-AGV-008")
def test_a_list_gives_a_list(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """A list of tensors, also of one, gives a list of results in its order, each as if gathered alone."""
    members = [
        ((4,), torch.float32),
        ((4, 3), torch.uint8),
        ((4, 2, 2), torch.int64),
        ((4, 0), torch.float32),
    ]
    lists = [
        [
            Case("all_gatherv", shape, dtype, {"dim": 0, "sizes": sizes}, layout="strided", values="movement")
            for shape, dtype in members[:count]
        ]
        for count in (1, len(members))
        for sizes in (None, [4] * world_size, growing(world_size), *sizes_with_zeros(world_size))
    ]

    def body(group: Coordinator, lists: list[list[Case]]) -> list[list[Observation]]:
        return [gather_list(group, cases) for cases in lists]

    by_rank = coordinator_run(body, lists, world_size=world_size)
    for number, cases in enumerate(lists):
        for index, case in enumerate(cases):
            judge(case, [observed[number][index] for observed in by_rank])


def gather_list(group: Coordinator, cases: Sequence[Case]) -> list[Observation]:
    """Gather the inputs of all cases in one call, in a rank."""
    rank = group.rank_in_group
    inputs = [guard(case.input(rank, group.world_size), "strided", group.device) for case in cases]
    results = group.all_gatherv([each.tensor for each in inputs], **cases[0].arguments)
    assert isinstance(results, list)
    assert len(results) == len(cases)
    return [observe(result, [each]) for result, each in zip(results, inputs, strict=True)]


@pytest.mark.vdist_requirement("VD-AGV-006", "VD-AGV-007")
def test_every_declared_dtype_and_layout_is_gathered(
    coordinator_run: CoordinatorRun, world_size: int, movement_dtypes: list[torch.dtype]
) -> None:
    """Every declared dtype arrives bit for bit from views of any strides; the memory around them stays."""
    cases = [
        Case("all_gatherv", shape, dtype, {"dim": dim, "sizes": sizes}, layout=layout, values="movement")
        for dtype in movement_dtypes
        for shape, dim, sizes, layout in (
            ((4, 3, 5), 1, growing(world_size), "transposed"),
            ((7,), 0, growing(world_size), "contiguous"),
            ((7, 2), 0, None, "strided"),
        )
    ]
    cases += [
        Case(
            "all_gatherv",
            shape,
            torch.float32,
            {"dim": dim, "sizes": sizes},
            layout=layout,
            values="movement",
        )
        for layout in LAYOUTS
        for shape, dim, sizes in (
            ((4, 3, 5), 1, growing(world_size)),
            ((7,), 0, growing(world_size)),
            ((4, 3), 0, None),
        )
        if layout_fits(layout, shape)
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-AGV-007")
def test_results_share_no_memory(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """A result shares memory neither with inputs nor with earlier results, which later calls leave alone."""
    alone = [3] + [0] * (world_size - 1)
    cases = [
        Case("all_gatherv", (4, 6), torch.float32, {"dim": dim, "sizes": sizes}, values="movement")
        for sizes in (None, growing(world_size), alone)
        for dim in (0, 1)
    ]
    assert_results_stay_apart(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-AGV-001")
def test_subgroups_gather_among_themselves(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Ranks 0 and 2, and ranks 1 and 3, gather their own parts only."""
    cases = [
        Case("all_gatherv", (4, 3), torch.float32, {"dim": dim, "sizes": sizes}, values="movement")
        for sizes in ([1, 5], [0, 2], None)
        for dim in (0, 1)
    ]
    assert_cases(coordinator_run, cases, world_size=world_size, group_ranks=[[0, 2], [1, 3]])


@pytest.mark.vdist_requirement("VD-AGV-001", "VD-AGV-007")
def test_hundreds_of_results_are_right_and_stay_so(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """520 calls in a row give 520 right results, and the results first still hold after the last."""
    assert_series(coordinator_run, "all_gatherv", world_size=world_size)
