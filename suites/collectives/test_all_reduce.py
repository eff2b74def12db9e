"""all_reduce: the sum over the group, on every rank."""

from __future__ import annotations

import itertools

import pytest
import torch

from pytest_vdist import Capabilities, Coordinator, CoordinatorRun
from pytest_vdist.judge import LAYOUTS, guard, layout_fits
from pytest_vdist.judge.cases import Case, assert_cases, assert_results_stay_apart
from pytest_vdist.judge.series import assert_series

WRITABLE = [layout for layout in LAYOUTS if layout != "expanded" and layout_fits(layout, (2, 3))]
SHAPES = [(), (0,), (1,), (2,), (3, 0), (7,), (127,), (4, 3), (2, 5, 3), (2, 3, 2, 5), (2, 1, 2, 3, 2)]
SHAPES += [(4099,), (262147,)]


@pytest.mark.vdist_requirement("VD-AR-001", "VD-AR-003", "VD-AR-004", "VD-AR-007")
def test_sums_are_exact_for_every_size(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Tensors of every size and dimension are summed exactly, to the same bits on every rank; inputs stay."""
    cases = [
        Case("all_reduce", shape, dtype, seed=seed)
        for seed, shape in enumerate(SHAPES)
        for dtype in (torch.float32, torch.bfloat16, torch.int32)
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-AR-006")
def test_every_declared_dtype_is_summed(
    coordinator_run: CoordinatorRun, world_size: int, reduction_dtypes: list[torch.dtype]
) -> None:
    """Every dtype that is declared for sums is summed, and dtype, shape and device are those of the input."""
    cases = [Case("all_reduce", shape, dtype) for dtype in reduction_dtypes for shape in ((5, 3), (257,))]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-AR-009")
def test_the_value_of_one_rank_arrives_to_the_last_bit(
    coordinator_run: CoordinatorRun, world_size: int, reduction_dtypes: list[torch.dtype]
) -> None:
    """Where one rank alone is not zero, every rank gets its value unchanged, whichever rank it is."""
    cases = [
        Case("all_reduce", (1031,), dtype, values=str(hot))
        for dtype in reduction_dtypes
        for hot in range(world_size)
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-AR-002", "VD-AR-003")
def test_inexact_sums_keep_the_declared_bound(
    coordinator_run: CoordinatorRun,
    world_size: int,
    reduction_dtypes: list[torch.dtype],
    capabilities: Capabilities,
) -> None:
    """Sums that round stay within the bound of the declared accumulator, and all ranks hold the same bits."""
    floats = [dtype for dtype in reduction_dtypes if dtype.is_floating_point]
    cases = [
        Case("all_reduce", (4099,), dtype, values="bounded", seed=seed) for dtype in floats for seed in (1, 2)
    ]
    assert_cases(coordinator_run, cases, world_size=world_size, accumulate=capabilities.accumulate)


@pytest.mark.vdist_requirement("VD-AR-004", "VD-AR-008")
def test_views_are_summed_as_their_copies(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Views of any strides and offset are summed right; neither they nor the memory around them change."""
    cases = [
        Case("all_reduce", shape, dtype, layout=layout)
        for layout in LAYOUTS
        for shape in ((6,), (4, 3), (2, 3, 5), (2, 3, 2, 2))
        for dtype in (torch.float32, torch.float16, torch.int64)
        if layout_fits(layout, shape)
    ]
    cases += [Case("all_reduce", (4, 3), torch.float32, layout=("contiguous", "transposed", "strided"))]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-AR-005")
def test_results_share_no_memory(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """A result shares memory neither with inputs nor with earlier results, which later calls leave alone."""
    cases = [
        Case("all_reduce", shape, dtype, layout=layout)
        for shape, layout in [
            ((33,), "contiguous"),
            ((33,), "contiguous"),
            ((4, 3), "transposed"),
            ((), "offset"),
        ]
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert_results_stay_apart(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-AR-010")
def test_the_input_is_written_to_where_that_is_declared(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """Where all_reduce is declared to be in place, its input holds the sum and is returned; else it stays."""

    def body(group: Coordinator) -> list[tuple[str, bool, list[float]]]:
        judged = getattr(group, "in_place_coordinator", group)
        found = []
        for layout, dtype in itertools.product(WRITABLE, (torch.float32, torch.bfloat16, torch.int64)):
            own = torch.arange(6, dtype=dtype).view(2, 3) + group.rank_in_group
            x = guard(own, layout, group.device).tensor
            returned = judged.all_reduce(x)
            found.append((f"{dtype}, {layout}", returned is x, x.flatten().tolist()))
        return found

    declared = "all_reduce" in capabilities.in_place
    ranks = range(world_size)
    for rank, found in enumerate(coordinator_run(body, world_size=world_size)):
        summed = [float(sum(value + each for each in ranks)) for value in range(6)]
        kept = [float(value + rank) for value in range(6)]
        for call, is_input, values in found:
            told = f"rank {rank}: all_reduce of {call}, in_place is {'' if declared else 'not '}declared"
            assert values == (summed if declared else kept), f"{told}: the input holds {values} after it"
            assert is_input == declared, f"{told}: it returned {'' if is_input else 'not '}its input"


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-AR-001")
def test_subgroups_sum_among_themselves(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Ranks 0 and 2, and ranks 1 and 3, sum their own tensors only."""
    cases = [Case("all_reduce", shape, torch.float32) for shape in ((), (5, 3), (4099,))]
    assert_cases(coordinator_run, cases, world_size=world_size, group_ranks=[[0, 2], [1, 3]])


@pytest.mark.vdist_requirement("VD-AR-001", "VD-AR-005")
def test_hundreds_of_results_are_right_and_stay_so(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """520 calls in a row give 520 right results, and the results first still hold after the last."""
    assert_series(coordinator_run, "all_reduce", world_size=world_size)
