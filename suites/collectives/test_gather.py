"""gather: the tensors of all ranks joined along one dimension, on one rank."""

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


@pytest.mark.vdist_requirement("VD-GA-001", "VD-GA-002", "VD-GA-003", "VD-GA-004")
def test_every_rank_can_be_the_destination(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """The destination gets the tensors in the order of the ranks, along every dimension; others get None."""
    cases = [
        Case("gather", shape, torch.float32, {"dst": dst, "dim": dim}, values="movement")
        for dst in range(world_size)
        for shape, dim in DIMS
    ]
    cases += [Case("gather", shape, torch.float32, values="movement") for shape in SHAPES]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-GA-005")
def test_every_declared_dtype_is_gathered(
    coordinator_run: CoordinatorRun, world_size: int, movement_dtypes: list[torch.dtype]
) -> None:
    """Every dtype that is declared for moving arrives bit for bit: NaNs, zeros of both signs, extremes."""
    cases = [
        Case("gather", shape, dtype, {"dst": world_size - 1, "dim": dim}, values="movement")
        for dtype in movement_dtypes
        for shape, dim in (((257,), 0), ((3, 5), 0), ((3, 5), 1))
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-GA-005")
def test_every_size_is_gathered_in_full(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """No element is lost from tensors of zero, one, an odd, a prime and a large number of elements."""
    cases = [
        Case("gather", shape, torch.float32, {"dst": dst, "dim": dim}, values="movement")
        for shape in SIZES
        for dim in {0, len(shape) - 1}
        for dst in {0, world_size - 1}
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-GA-006", "VD-GA-007")
def test_views_are_gathered_as_their_copies(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Views of any strides and offset are gathered right; neither they nor the memory around them change."""
    cases = [
        Case("gather", shape, dtype, {"dst": dst, "dim": dim}, layout=layout, values="movement")
        for layout in LAYOUTS
        for shape in ((6,), (4, 3), (2, 3, 5), (2, 3, 2, 2))
        for dim, dst, dtype in ((0, 0, torch.float32), (-1, world_size - 1, torch.uint8))
        if layout_fits(layout, shape)
    ]
    cases += [
        Case("gather", (4, 3), torch.float32, {"dim": dim}, layout=MIXED, values="movement") for dim in (0, 1)
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-GA-008")
def test_results_share_no_memory(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """A result shares memory neither with inputs nor with earlier results, which later calls leave alone."""
    cases = [
        Case("gather", (4, 6), torch.float32, {"dst": dst, "dim": dim}, layout=layout, values="movement")
        for layout in ("contiguous", "transposed")
        for dim in (0, 1)
        for dst in range(world_size)
    ]
    assert_results_stay_apart(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-GA-001", "VD-GA-003")
def test_subgroups_gather_among_themselves(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Ranks 0 and 2, and ranks 1 and 3, gather their own tensors only, at ranks within their group."""
    cases = [
        Case("gather", (5, 3), torch.float32, {"dst": dst, "dim": dim}, values="movement")
        for dst in (0, 1)
        for dim in (0, 1)
    ]
    assert_cases(coordinator_run, cases, world_size=world_size, group_ranks=[[0, 2], [1, 3]])


@pytest.mark.vdist_requirement("VD-GA-001", "VD-GA-008")
def test_hundreds_of_results_are_right_and_stay_so(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """520 calls in a row give 520 right results, and the results first still hold after the last."""
    assert_series(coordinator_run, "gather", world_size=world_size)
