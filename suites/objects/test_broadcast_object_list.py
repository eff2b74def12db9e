"""broadcast_object_list: one rank's list of Python objects, written into every rank's list."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_vdist import Coordinator, CoordinatorRun

ROWS = [[0, 1], [2, 3]]


def lists_of(rank: int) -> list[list[Any]]:
    """Make lists of one, three and many objects, large and small, that tell ranks and positions apart."""
    return [
        [rank],
        [None, {"rank": rank, "nested": [rank, None]}, bytes([rank]) * 100_001],
        [("position", rank, n) for n in range(20)],
        [bytes([rank]) * (3 << 20), "", SimpleNamespace(rank=rank), b""],
    ]


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-OBJ-003")
def test_lists_are_overwritten_by_those_of_any_source(
    coordinator_run: CoordinatorRun, world_size: int
) -> None:
    """Each rank's own list holds the source's objects in their order after the call, and is the result."""

    def body(group: Coordinator) -> list[str]:
        found = []
        for src in range(group.world_size):
            for sent, own in zip(lists_of(src), lists_of(group.rank_in_group), strict=True):
                passed = own if group.rank_in_group == src else [f"stale {n}" for n in range(len(sent))]
                result = group.broadcast_object_list(passed, src=src)
                if passed != sent or result != sent:
                    found.append(
                        f"{len(sent)} objects from rank {src}: {str(passed)[:80]}, {str(result)[:80]}"
                    )
        return found

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-OBJ-003")
def test_sources_of_lists_are_ranks_within_the_group(
    coordinator_run: CoordinatorRun, world_size: int
) -> None:
    """In each of two groups at once, the source of a list is named by its rank within the group."""

    def body(group: Coordinator) -> list[list[int]]:
        return [group.broadcast_object_list([group.rank, -group.rank], src=src) for src in (0, 1)]

    results = coordinator_run(body, world_size=world_size, group_ranks=ROWS)

    assert results == [[[0, 0], [1, -1]]] * 2 + [[[2, -2], [3, -3]]] * 2


@pytest.mark.vdist_world_size(max=1)
@pytest.mark.vdist_requirement("VD-OBJ-009")
def test_a_group_of_one_rank_keeps_its_list(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Broadcasting a list in a group of one rank returns it with its objects."""

    def body(group: Coordinator) -> list[list[Any]]:
        return [group.broadcast_object_list(each, src=0) for each in lists_of(3)]

    assert coordinator_run(body, world_size=world_size) == [lists_of(3)]
