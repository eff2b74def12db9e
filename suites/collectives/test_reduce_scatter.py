"""reduce_scatter: the sum over the group, of which every rank gets an equal part."""

from __future__ import annotations

import pytest
import torch

from pytest_vdist import Capabilities, Coordinator, CoordinatorRun
from pytest_vdist.judge import LAYOUTS, layout_fits
from pytest_vdist.judge.cases import Case, assert_cases, assert_results_stay_apart
from pytest_vdist.judge.series import assert_series

SHAPES = [(5,), (5, 3), (2, 5, 3), (3, 2, 5, 7), (2, 1, 2, 3, 2)]
DIMS = [(shape, dim) for shape in SHAPES for dim in range(-len(shape), len(shape))]
SIZES = [(0,), (1,), (3,), (7,), (127,), (4099,), (65537,), (0, 3), (3, 0), (1, 1, 1), (2, 0, 3, 1)]


def scattered(
    part: tuple[int, ...],
    dim: int,
    world_size: int,
    dtype: torch.dtype = torch.float32,
    *,
    layout: str | tuple[str, ...] = "contiguous",
    values: str = "exact",
) -> Case:
    """Make a case in which every rank gets a result of shape `part`."""
    shape = list(part)
    shape[dim] *= world_size
    return Case("reduce_scatter", tuple(shape), dtype, {"dim": dim}, layout, values)


def all_divisible(world_size: int) -> list[Case]:
    """Make cases in which every dimension could be scattered, so that a wrong one raises no error."""
    shape = (world_size, 2 * world_size, 3 * world_size)
    return [Case("reduce_scatter", shape, torch.float32, {"dim": dim}) for dim in range(-3, 3)]


@pytest.mark.vdist_requirement("VD-RS-001", "VD-RS-002")
def test_sums_are_scattered_along_every_dimension(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Every rank gets its part of the exact sum, along every dimension, by default the last."""
    cases = [
        scattered(shape, dim, world_size, dtype)
        for shape, dim in DIMS
        for dtype in (torch.float32, torch.int32)
    ]
    cases += [
        Case("reduce_scatter", (*shape[:-1], shape[-1] * world_size), torch.float32) for shape in SHAPES
    ]
    cases += all_divisible(world_size)
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-RS-003")
def test_gathered_parts_are_the_all_reduce(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """all_gather of the parts along the same dimension equals all_reduce of the same tensor."""
    cases = [scattered(shape, dim, world_size) for shape, dim in DIMS] + all_divisible(world_size)

    def body(group: Coordinator, cases: list[Case]) -> list[str]:
        wrong = []
        for case in cases:
            tensor = case.input(group.rank_in_group, group.world_size).to(group.device)
            parts = group.reduce_scatter(tensor, **case.arguments)
            if not torch.equal(group.all_gather(parts, **case.arguments), group.all_reduce(tensor)):
                wrong.append(str(case))
        return wrong

    assert coordinator_run(body, cases, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-RS-004")
def test_inexact_sums_keep_the_declared_bound(
    coordinator_run: CoordinatorRun,
    world_size: int,
    reduction_dtypes: list[torch.dtype],
    capabilities: Capabilities,
) -> None:
    """Sums that round stay within the bound of the declared accumulator."""
    cases = [
        scattered(shape, dim, world_size, dtype, values="bounded")
        for dtype in reduction_dtypes
        if dtype.is_floating_point
        for shape, dim in (((4099,), 0), ((3, 127), 1))
    ]
    assert_cases(coordinator_run, cases, world_size=world_size, accumulate=capabilities.accumulate)


@pytest.mark.vdist_requirement("VD-RS-005", "VD-RS-001")
def test_every_declared_dtype_is_summed(
    coordinator_run: CoordinatorRun, world_size: int, reduction_dtypes: list[torch.dtype]
) -> None:
    """Every declared dtype is summed, and what one rank alone contributes arrives to the last bit."""
    cases = [
        scattered(shape, dim, world_size, dtype)
        for dtype in reduction_dtypes
        for shape, dim in (((257,), 0), ((3, 5), 1))
    ]
    cases += [
        scattered((257, 2), 0, world_size, dtype, values=str(hot))
        for dtype in reduction_dtypes
        for hot in range(world_size)
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-RS-006")
def test_every_size_is_summed_in_full(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Parts of zero, one, an odd, a prime and a large number of elements are summed in full."""
    cases = [
        scattered(shape, dim, world_size, dtype)
        for shape in SIZES
        for dim in {0, len(shape) - 1}
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-RS-007", "VD-RS-008")
def test_views_are_summed_as_their_copies(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Views of any strides and offset are summed right; neither they nor the memory around them change."""
    cases = [
        scattered(shape, dim, world_size, dtype, layout=layout)
        for layout in LAYOUTS
        for shape in ((6,), (4, 3), (2, 3, 5), (2, 3, 2, 2))
        for dim, dtype in ((0, torch.float32), (-1, torch.int64))
        if layout_fits(layout, shape)
    ]
    mixed = ("contiguous", "transposed", "strided")
    cases += [scattered((4, 3), dim, world_size, layout=mixed) for dim in (0, 1)]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-RS-009")
def test_results_share_no_memory(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """A result shares memory neither with inputs nor with earlier results, which later calls leave alone."""
    cases = [
        scattered((4, 6), dim, world_size, layout=layout)
        for layout in ("contiguous", "transposed")
        for dim in (0, 1)
    ]
    assert_results_stay_apart(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-RS-001")
def test_subgroups_sum_among_themselves(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Ranks 0 and 2, and ranks 1 and 3, sum their own tensors only."""
    cases = [scattered((5, 3), dim, 2, dtype) for dim in (0, 1) for dtype in (torch.float32, torch.int32)]
    assert_cases(coordinator_run, cases, world_size=world_size, group_ranks=[[0, 2], [1, 3]])


@pytest.mark.vdist_requirement("VD-RS-001", "VD-RS-009")
def test_hundreds_of_results_are_right_and_stay_so(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """520 calls in a row give 520 right results, and the results first still hold after the last."""
    assert_series(coordinator_run, "reduce_scatter", world_size=world_size)
