"""all_gather: the tensors of all ranks joined along one dimension, on every rank."""

from __future__ import annotations

import pytest
import torch

from pytest_vdist import CoordinatorRun
from pytest_vdist.judge import LAYOUTS, layout_fits
from pytest_vdist.judge.cases import Case, assert_cases, assert_results_stay_apart
from pytest_vdist.judge.series import assert_series

SHAPES = [(5,), (5, 3), (2, 5, 3), (3, 2, 5, 7), (2, 1, 2, 3, 2)]
DIMS = [(shape, dim) for shape in SHAPES for dim in range(-len(shape), len(shape))]
SIZES = [(0,), (1,), (3,), (7,), (127,), (4099,), (262147,), (0, 3), (3, 0), (1, 1, 1), (2, 0, 3, 1)]
MIXED = ("contiguous", "transposed", "expanded", "strided")


@pytest.mark.vdist_requirement("VD-AG-001", "VD-AG-002", "VD-AG-008")
def test_tensors_are_joined_along_every_dimension(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Every rank gets the tensors in the order of the ranks, along every dimension, by default the last."""
    cases = [
        Case("all_gather", shape, dtype, {"dim": dim}, values="movement")
        for shape, dim in DIMS
        for dtype in (torch.float32, torch.uint8)
    ]
    cases += [Case("all_gather", shape, torch.float32, values="movement") for shape in SHAPES]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-AG-003")
def test_every_declared_dtype_is_gathered(
    coordinator_run: CoordinatorRun, world_size: int, movement_dtypes: list[torch.dtype]
) -> None:
    """Every dtype that is declared for moving arrives bit for bit: NaNs, zeros of both signs, extremes."""
    cases = [
        Case("all_gather", shape, dtype, {"dim": dim}, values="movement")
        for dtype in movement_dtypes
        for shape, dim in (((257,), 0), ((3, 5), 0), ((3, 5), 1))
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-AG-004")
def test_every_size_is_gathered_in_full(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """No element is lost from tensors of zero, one, an odd, a prime and a large number of elements."""
    cases = [
        Case("all_gather", shape, dtype, {"dim": dim}, values="movement")
        for shape in SIZES
        for dim in {0, len(shape) - 1}
        for dtype in (torch.float32, torch.int8)
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-AG-005", "VD-AG-006")
def test_views_are_gathered_as_their_copies(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Views of any strides and offset are gathered right; neither they nor the memory around them change."""
    cases = [
        Case("all_gather", shape, dtype, {"dim": dim}, layout=layout, values="movement")
        for layout in LAYOUTS
        for shape in ((6,), (4, 3), (2, 3, 5), (2, 3, 2, 2))
        for dim, dtype in ((0, torch.float32), (-1, torch.int64))
        if layout_fits(layout, shape)
    ]
    cases += [
        Case("all_gather", (4, 3), torch.float32, {"dim": dim}, layout=MIXED, values="movement")
        for dim in (0, 1)
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-AG-007")
def test_results_share_no_memory(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """A result shares memory neither with inputs nor with earlier results, which later calls leave alone."""
    cases = [
        Case("all_gather", (4, 6), torch.float32, {"dim": dim}, layout=layout, values="movement")
        for layout in ("contiguous", "transposed")
        for dim in (0, 1)
    ]
    assert_results_stay_apart(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-AG-001")
def test_subgroups_gather_among_themselves(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Ranks 0 and 2, and ranks 1 and 3, gather their own tensors only."""
    cases = [
        Case("all_gather", (5, 3), dtype, {"dim": dim}, values="movement")
        for dim in (0, 1)
        for dtype in (torch.float32, torch.uint8)
    ]
    assert_cases(coordinator_run, cases, world_size=world_size, group_ranks=[[0, 2], [1, 3]])


@pytest.mark.vdist_requirement("VD-AG-001", "VD-AG-007")
def test_hundreds_of_results_are_right_and_stay_so(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """520 calls in a row give 520 right results, and the results first still hold after the last."""
    assert_series(coordinator_run, "all_gather", world_size=world_size)
