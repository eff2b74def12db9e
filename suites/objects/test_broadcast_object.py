"""broadcast_object: one rank's Python object, on every rank."""

from __future__ import annotations

import random
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_vdist import Coordinator, CoordinatorRun

SIZES = [0, 1, 2, 255, 256, 65_535, 65_537, (4 << 20) + 3]
ROWS, COLUMNS = [[0, 1], [2, 3]], [[0, 2], [1, 3]]


def objects_of(rank: int) -> list[Any]:
    """Make objects of every kind that a rank's number changes, and those that it cannot."""
    return [
        None,
        bool(rank % 2),
        rank,
        -(1 << 80) - rank,
        0.1 * rank,
        complex(rank, -rank),
        "",
        f"rank {rank} · 순위 \x00",
        b"",
        bytes([0, 255, rank]),
        bytearray([rank] * 3),
        (),
        (rank, (rank + 1, [None])),
        [],
        [rank, "two", [3.0]],
        {},
        {rank: "number", "number": rank, (1, 2): {"inner": rank}},
        {rank, "set"},
        frozenset({rank}),
        range(rank, 100, 3),
        Fraction(1, rank + 2),
        timedelta(seconds=rank),
        SimpleNamespace(rank=rank, name="namespace"),
    ]


def payload(rank: int, size: int) -> bytes:
    return random.Random(f"{rank} {size}").randbytes(size)  # noqa: S311 - bytes that differ, not secrets


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-OBJ-001", "VD-OBJ-002")
def test_every_rank_gets_the_object_of_any_source(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Objects of every kind arrive with their type and value on all ranks, whichever rank is the source."""

    def body(group: Coordinator) -> list[Any]:
        own = objects_of(group.rank_in_group)
        return [
            group.broadcast_object(own[n] if group.rank_in_group == src else None, src=src)
            for n in range(len(own))
            for src in range(group.world_size)
        ]

    sent = [objects_of(src)[n] for n in range(len(objects_of(0))) for src in range(world_size)]
    for rank, received in enumerate(coordinator_run(body, world_size=world_size)):
        assert received == sent, f"rank {rank}"
        assert [type(each) for each in received] == [type(each) for each in sent], f"rank {rank}"


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-OBJ-005")
def test_objects_of_every_size_are_broadcast_whole(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Bytes from none to several megabytes arrive whole on all ranks, also small after large ones."""

    def body(group: Coordinator, order: list[tuple[int, int]]) -> list[str]:
        return [
            sha256(
                group.broadcast_object(payload(src, size) if src == group.rank_in_group else None, src=src)
            ).hexdigest()
            for size, src in order
        ]

    order = [(size, n % world_size) for n, size in enumerate(SIZES)]
    order += [(size, world_size - 1) for size in reversed(SIZES)]
    sent = [sha256(payload(src, size)).hexdigest() for size, src in order]
    assert coordinator_run(body, order, world_size=world_size) == [sent] * world_size


@pytest.mark.parametrize("group_ranks", [ROWS, COLUMNS], ids=["rows", "columns"])
@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-OBJ-002")
def test_sources_are_ranks_within_the_group(
    coordinator_run: CoordinatorRun, world_size: int, group_ranks: list[list[int]]
) -> None:
    """In each of two groups at once, the source is named by its rank within the group."""

    def body(group: Coordinator) -> list[str]:
        mine = f"global rank {group.rank}"
        return [group.broadcast_object(mine if group.rank_in_group == src else None, src) for src in (0, 1)]

    results = coordinator_run(body, world_size=world_size, group_ranks=group_ranks)

    for ranks in group_ranks:
        for rank in ranks:
            assert results[rank] == [f"global rank {src}" for src in ranks], f"rank {rank}"


@pytest.mark.vdist_world_size(max=1)
@pytest.mark.vdist_requirement("VD-OBJ-009")
def test_a_group_of_one_rank_gets_its_own_object(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Broadcasting in a group of one rank returns the object."""

    def body(group: Coordinator) -> list[Any]:
        return [group.broadcast_object(each, src=0) for each in objects_of(7)]

    assert coordinator_run(body, world_size=world_size) == [objects_of(7)]
