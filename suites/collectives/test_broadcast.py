"""broadcast: one rank's tensor written into the tensor of every other rank."""

from __future__ import annotations

import pytest
import torch

from pytest_vdist import Coordinator, CoordinatorRun
from pytest_vdist.judge import LAYOUTS, layout_fits
from pytest_vdist.judge.cases import Case, assert_cases, assert_results_stay_apart
from pytest_vdist.judge.series import assert_series

SHAPES = [(), (0,), (1,), (2,), (3, 0), (7,), (127,), (4, 3), (2, 5, 3), (2, 3, 2, 5), (2, 1, 2, 3, 2)]
SHAPES += [(4099,), (262147,)]
# Elements of an expanded tensor share memory, so it can be sent but not filled.
DESTINATIONS = [layout for layout in LAYOUTS if layout != "expanded"]


@pytest.mark.vdist_requirement("VD-BC-001", "VD-BC-003", "VD-BC-004", "VD-BC-006")
def test_every_rank_can_be_the_source(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Every rank's tensor holds the source's bits, for every size and source, by default the first rank."""
    cases = [
        Case("broadcast", shape, torch.float32, {"src": src}, values="movement")
        for src in range(world_size)
        for shape in SHAPES
    ]
    cases += [Case("broadcast", shape, torch.float32, values="movement") for shape in SHAPES]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-BC-004")
def test_every_declared_dtype_is_broadcast(
    coordinator_run: CoordinatorRun, world_size: int, movement_dtypes: list[torch.dtype]
) -> None:
    """Every dtype that is declared for moving arrives bit for bit: NaNs, zeros of both signs, extremes."""
    cases = [
        Case("broadcast", shape, dtype, {"src": src}, values="movement")
        for dtype in movement_dtypes
        for shape in ((257,), (3, 5))
        for src in {0, world_size - 1}
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-BC-005", "VD-BC-006")
def test_views_are_filled_and_their_gaps_left_alone(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Views of any strides and offset are sent and filled right; the memory between their elements stays."""
    cases = [
        Case("broadcast", shape, dtype, {"src": src}, layout=layout, values="movement")
        for layout in DESTINATIONS
        for shape in ((6,), (4, 3), (2, 3, 5), (2, 3, 2, 2))
        for src, dtype in ((0, torch.float32), (world_size - 1, torch.int8))
        if layout_fits(layout, shape)
    ]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-BC-005", "VD-BC-006")
def test_source_and_destinations_may_differ_in_layout(
    coordinator_run: CoordinatorRun, world_size: int
) -> None:
    """Elements arrive by their indices where every rank's tensor has other strides."""
    cases = [
        Case("broadcast", shape, torch.float32, {"src": src}, layout=layouts, values="movement")
        for shape in ((4, 3, 5), (2, 3, 4, 3))
        for layouts in (tuple(DESTINATIONS), tuple(reversed(DESTINATIONS)))
        for src in range(world_size)
    ]
    for src in range(world_size):
        layouts = tuple("expanded" if rank == src else "strided" for rank in range(world_size))
        cases += [Case("broadcast", (4, 3), torch.float32, {"src": src}, layout=layouts, values="movement")]
    assert_cases(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-BC-002")
def test_the_given_tensor_is_returned(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Source and destinations get back the very tensor that they passed, also if it is empty or a view."""

    def body(group: Coordinator) -> list[str]:
        base = torch.zeros(4, 6, device=group.device)
        tensors = {"whole": base, "empty": base[:0], "transposed": base.T, "strided": base[:, ::2]}
        return [
            f"{name} from {src}"
            for name, tensor in tensors.items()
            for src in range(group.world_size)
            if group.broadcast(tensor, src=src) is not tensor
        ]

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_requirement("VD-BC-002", "VD-BC-006")
def test_later_calls_leave_earlier_tensors_alone(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """A tensor that was filled keeps its values while others are broadcast."""
    cases = [
        Case("broadcast", (4, 6), torch.float32, {"src": src}, layout=layout, values="movement")
        for layout in ("contiguous", "transposed", "strided")
        for src in range(world_size)
    ]
    assert_results_stay_apart(coordinator_run, cases, world_size=world_size)


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-BC-001", "VD-BC-003")
def test_subgroups_have_sources_of_their_own(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Ranks 0 and 2, and ranks 1 and 3, broadcast among themselves, from a rank within their group."""
    cases = [
        Case("broadcast", shape, torch.float32, {"src": src}, values="movement")
        for src in (0, 1)
        for shape in ((5, 3), (4099,))
    ]
    assert_cases(coordinator_run, cases, world_size=world_size, group_ranks=[[0, 2], [1, 3]])


@pytest.mark.vdist_requirement("VD-BC-001", "VD-BC-002")
def test_hundreds_of_tensors_are_right_and_stay_so(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """520 calls in a row fill 520 tensors right, and the first still hold after the last."""
    assert_series(coordinator_run, "broadcast", world_size=world_size)
