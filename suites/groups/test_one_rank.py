"""Groups of one rank: every call works, and waits for nobody."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_vdist import Capabilities, Coordinator, CoordinatorRun
from pytest_vdist.judge.cases import Case, assert_cases, perform_all

SHAPES = [(0,), (1,), (7,), (2, 3)]


def groups_of_one(world_size: int) -> list[list[int]]:
    return [[rank] for rank in range(world_size)]


def collectives(capabilities: Capabilities) -> list[Case]:
    cases = [
        Case(operation, shape, torch.float32, arguments)
        for shape in SHAPES
        for operation, arguments in (
            ("all_reduce", {}),
            ("all_gather", {"dim": 0}),
            ("all_gatherv", {"dim": 0}),
            ("all_gatherv", {"dim": 0, "sizes": [shape[0]]}),
            ("reduce_scatter", {"dim": 0}),
            ("reduce_scatterv", {"dim": 0}),
            ("reduce_scatterv", {"dim": 0, "sizes": [shape[0]]}),
            ("gather", {"dst": 0, "dim": 0}),
            ("broadcast", {"src": 0}),
        )
    ]
    return [case for case in cases if capabilities.supports(case.operation)]


@pytest.mark.vdist_requirement("VD-GRP-006")
def test_collectives_return_the_values_that_they_were_given(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """Every collective of a group of one rank gives that rank's own values."""
    assert_cases(
        coordinator_run,
        collectives(capabilities),
        world_size=world_size,
        group_ranks=groups_of_one(world_size),
    )


@pytest.mark.vdist_requirement("VD-GRP-006")
def test_objects_come_back(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Broadcasts of objects give what they were given."""

    def body(group: Coordinator) -> list[Any]:
        return [
            group.broadcast_object(("object", group.rank), src=0),
            group.broadcast_object_list([group.rank, None], src=0),
        ]

    results = coordinator_run(body, world_size=world_size, group_ranks=groups_of_one(world_size))
    assert results == [[("object", rank), [rank, None]] for rank in range(world_size)]


@pytest.mark.vdist_operations("broadcast_tensor_dict")
@pytest.mark.vdist_requirement("VD-GRP-006")
def test_dictionaries_come_back(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Broadcasts of tensor dictionaries give what they were given."""

    def body(group: Coordinator) -> list[Any]:
        values = {"rank": group.rank, "tensor": torch.full((2,), float(group.rank), device=group.device)}
        returned = group.broadcast_tensor_dict(values, src=0)
        assert returned is not None
        return [list(returned), returned["rank"], returned["tensor"].tolist()]

    results = coordinator_run(body, world_size=world_size, group_ranks=groups_of_one(world_size))
    assert results == [[["rank", "tensor"], rank, [rank] * 2] for rank in range(world_size)]


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-GRP-006")
def test_nothing_waits_for_other_ranks(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """Every call returns while no other rank of the world makes any."""

    def body(group: Coordinator, caller: int, cases: list[Case]) -> int:
        if group.rank != caller:
            return 0
        group.barrier()
        group.broadcast_object(caller, src=0)
        if dicts:
            group.broadcast_tensor_dict({"rank": caller}, src=0)
        return len(perform_all(group, cases))

    cases, dicts = collectives(capabilities), capabilities.supports("broadcast_tensor_dict")
    for caller in range(world_size):
        made = coordinator_run(
            body, caller, cases, world_size=world_size, group_ranks=groups_of_one(world_size)
        )
        assert made == [len(cases) if rank == caller else 0 for rank in range(world_size)]
