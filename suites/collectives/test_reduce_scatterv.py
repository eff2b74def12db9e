"""reduce_scatterv: the sum over the group, of which every rank gets a part of its own size."""

from __future__ import annotations

import pytest
import torch

from pytest_vdist import Capabilities, Coordinator, CoordinatorRun
from pytest_vdist.judge import LAYOUTS, layout_fits
from pytest_vdist.judge.cases import Case, assert_cases, assert_results_stay_apart
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


def scattered(
    like: tuple[int, ...],
    dim: int,
    sizes: list[int],
    dtype: torch.dtype = torch.float32,
    *,
    layout: str = "contiguous",
    values: str = "exact",
) -> Case:
    """Make a case of the shape `like`, but as long along `dim` as the sizes add up to."""
    shape = list(like)
    shape[dim] = sum(sizes)
    return Case("reduce_scatterv", tuple(shape), dtype, {"dim": dim, "sizes": sizes}, layout, values)


@pytest.mark.vdist_requirement("VD-RSV-001", "VD-RSV-004", "VD-RSV-008")
def test_sums_are_scattered_in_parts_of_any_size(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Every rank gets the part of the sum that the sizes say, along any dimension, by default the last."""
    up, down = growing(world_size), growing(world_size)[::-1]
    cases = [
        scattered(shape, dim, sizes, dtype)
        for shape, dim in DIMS
        for sizes, dtype in ((up, torch.float32), (down, torch.int32))
    ]
    cases += [
        Case("reduce_scatterv", (*shape[:-1], sum(down)), torch.float32, {"sizes": down}) for shape in SHAPES
    ]
    cases += [scattered((1,), 0, [65537, 1, 4099, 127][:world_size])]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-RSV-002")
def test_ranks_may_get_nothing(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """A rank with size zero takes part in the sum and gets an empty result, whichever rank it is."""
    cases = [scattered((4, 3), dim, sizes) for sizes in sizes_with_zeros(world_size) for dim in (0, -1)]
    cases += [scattered((4, 0), 0, growing(world_size))]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-RSV-003", "VD-RSV-004", "VD-RSV-008")
def test_equal_parts_are_summed_as_by_reduce_scatter(
    coordinator_run: CoordinatorRun, world_size: int
) -> None:
    """Without sizes, and with equal sizes, the result is that of reduce_scatter."""
    cases = []
    for shape, dim in DIMS:
        with_sizes = scattered(shape, dim, [shape[dim]] * world_size)
        without = Case("reduce_scatterv", with_sizes.shape, torch.float32, {"dim": dim})
        cases += [with_sizes, without]
    cases += [Case("reduce_scatterv", (3, 5 * world_size), torch.float32, {"sizes": None})]
    # Where every dimension could be scattered, a wrong one raises no error.
    divisible = (world_size, 2 * world_size, 3 * world_size)
    cases += [Case("reduce_scatterv", divisible, torch.float32, {"dim": dim}) for dim in range(-3, 3)]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_operations("all_gatherv")
@pytest.mark.vdist_requirement("VD-RSV-005")
def test_gathered_parts_are_the_all_reduce(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """all_gatherv of the parts with the same sizes equals all_reduce of the same tensor."""
    cases = [scattered(shape, dim, growing(world_size)) for shape, dim in DIMS]
    cases += [scattered((4, 3), dim, sizes) for sizes in sizes_with_zeros(world_size) for dim in (0, 1)]

    def body(group: Coordinator, cases: list[Case]) -> list[str]:
        wrong = []
        for case in cases:
            tensor = case.input(group.rank_in_group, group.world_size).to(group.device)
            joined = group.all_gatherv(group.reduce_scatterv(tensor, **case.arguments), **case.arguments)
            assert isinstance(joined, torch.Tensor)
            if not torch.equal(joined, group.all_reduce(tensor)):
                wrong.append(str(case))
        return wrong

    assert coordinator_run(body, cases, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_requirement("VD-RSV-006", "VD-RSV-007", "VD-RSV-001")
def test_every_declared_dtype_and_layout_is_summed(
    coordinator_run: CoordinatorRun,
    world_size: int,
    reduction_dtypes: list[torch.dtype],
    capabilities: Capabilities,
) -> None:
    """Every declared dtype is summed from views of any strides, exactly or within the declared bound."""
    sizes = growing(world_size)
    cases = [
        scattered(shape, dim, sizes, dtype, layout=layout)
        for dtype in reduction_dtypes
        for shape, dim, layout in (((4, 3, 5), 1, "transposed"), ((7,), 0, "contiguous"))
    ]
    cases += [
        scattered(shape, dim, sizes, layout=layout)
        for layout in LAYOUTS
        for shape, dim in (((4, 3, 5), 1), ((4, 3), 0), ((7,), 0))
        if layout_fits(layout, shape)
    ]
    cases += [
        scattered((3, 5), 0, sizes, dtype, values=values)
        for dtype in reduction_dtypes
        for values in (*map(str, range(world_size)), *(["bounded"] if dtype.is_floating_point else []))
    ]
    assert_cases(coordinator_run, cases, world_size=world_size, accumulate=capabilities.accumulate)


@pytest.mark.vdist_requirement("VD-RSV-007")
def test_results_share_no_memory(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """A result shares memory neither with inputs nor with earlier results, which later calls leave alone."""
    alone = [3] + [0] * (world_size - 1)
    cases = [
        scattered((4, 6), dim, sizes)
        for sizes in ([2] * world_size, growing(world_size), alone)
        for dim in (0, 1)
    ]
    assert_results_stay_apart(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-RSV-001")
def test_subgroups_sum_among_themselves(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Ranks 0 and 2, and ranks 1 and 3, sum their own tensors only."""
    cases = [scattered((4, 3), dim, sizes) for sizes in ([1, 5], [0, 2], [2, 2]) for dim in (0, 1)]
    assert_cases(coordinator_run, cases, world_size=world_size, group_ranks=[[0, 2], [1, 3]])


@pytest.mark.vdist_requirement("VD-RSV-001", "VD-RSV-007")
def test_hundreds_of_results_are_right_and_stay_so(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """520 calls in a row give 520 right results, and the results first still hold after the last."""
    assert_series(coordinator_run, "reduce_scatterv", world_size=world_size)
