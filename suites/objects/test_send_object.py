"""send_object and recv_object: Python objects from one rank to another."""

from __future__ import annotations

import random
from datetime import timedelta
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_vdist import Coordinator, CoordinatorRun

SIZES = [0, 1, 255, 256, 65_537, (4 << 20) + 3]
ROWS, COLUMNS = [[0, 1], [2, 3]], [[0, 2], [1, 3]]


def objects_from(src: int, dst: int) -> list[Any]:
    """Make objects of several kinds that tell the pair of ranks apart."""
    return [
        None,
        (src, dst),
        {"src": src, "dst": [dst, None, {"flag": True}]},
        f"from {src} to {dst} · 순위",
        bytes([src, dst, 0]),
        {src - 10, dst},
        SimpleNamespace(src=src, dst=dst),
        timedelta(src, dst),
    ]


def pairs_of(world_size: int) -> list[tuple[int, int]]:
    return [(src, dst) for src in range(world_size) for dst in range(world_size) if src != dst]


def payload(src: int, dst: int, size: int) -> bytes:
    return random.Random(f"{src} {dst} {size}").randbytes(size)  # noqa: S311 - bytes that differ, not secrets


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-OBJ-004")
def test_objects_arrive_for_every_pair(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Objects of every kind arrive with their type and value, from every rank to every other rank."""

    def body(group: Coordinator) -> list[Any]:
        received = []
        for src, dst in pairs_of(group.world_size):
            for obj in objects_from(src, dst):
                if group.rank_in_group == src:
                    group.send_object(obj, dst)
                elif group.rank_in_group == dst:
                    received.append(group.recv_object(src))
        return received

    for rank, received in enumerate(coordinator_run(body, world_size=world_size)):
        sent = [obj for src, dst in pairs_of(world_size) if dst == rank for obj in objects_from(src, dst)]
        assert received == sent, f"rank {rank}"
        assert [type(each) for each in received] == [type(each) for each in sent], f"rank {rank}"


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-OBJ-005", "VD-OBJ-006")
def test_objects_of_every_size_arrive_in_order(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Bytes from none to several megabytes arrive whole; a small object does not overtake a large one."""

    def body(group: Coordinator, routes: list[tuple[int, int]], sizes: list[int]) -> list[str]:
        received = []
        for src, dst in routes:
            for size in sizes:
                if group.rank_in_group == src:
                    group.send_object(payload(src, dst, size), dst)
                elif group.rank_in_group == dst:
                    received.append(sha256(group.recv_object(src)).hexdigest())
        return received

    routes = [(0, world_size - 1), (world_size - 1, 0)]
    sizes = [*SIZES, *reversed(SIZES)]
    results = coordinator_run(body, routes, sizes, world_size=world_size)

    for src, dst in routes:
        assert results[dst] == [sha256(payload(src, dst, size)).hexdigest() for size in sizes], f"from {src}"


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-OBJ-006")
def test_many_objects_arrive_in_the_order_of_sending(
    coordinator_run: CoordinatorRun, world_size: int
) -> None:
    """Objects of changing sizes that one rank sends to the next arrive in the order in which it sent them."""

    def body(group: Coordinator) -> list[tuple[int, int]]:
        received = []
        for src in range(group.world_size):
            dst = (src + 1) % group.world_size
            for n in range(25):
                if group.rank_in_group == src:
                    group.send_object((n, bytes(n * 7919 % 3000)), dst)
                elif group.rank_in_group == dst:
                    number, data = group.recv_object(src)
                    received.append((number, len(data)))
        return received

    sent = [(n, n * 7919 % 3000) for n in range(25)]
    assert coordinator_run(body, world_size=world_size) == [sent] * world_size


@pytest.mark.vdist_world_size(min=3)
@pytest.mark.vdist_requirement("VD-OBJ-008")
def test_objects_of_several_senders_are_kept_apart(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """A receiver that asks all the others in turn gets each one's objects, in each one's order."""

    def body(group: Coordinator) -> list[Any]:
        received: list[Any] = []
        for dst in range(group.world_size):
            if group.rank_in_group != dst:
                for n in range(6):
                    group.send_object((group.rank_in_group, n, bytes(n * 100)), dst)
                continue
            senders = [src for src in reversed(range(group.world_size)) if src != dst]
            received = [group.recv_object(src) for _ in range(3) for src in senders]
            received += [group.recv_object(src) for src in reversed(senders) for _ in range(3)]
        return received

    for rank, received in enumerate(coordinator_run(body, world_size=world_size)):
        senders = [src for src in reversed(range(world_size)) if src != rank]
        asked = [(src, n) for n in range(3) for src in senders]
        asked += [(src, n) for src in reversed(senders) for n in range(3, 6)]
        assert received == [(src, n, bytes(n * 100)) for src, n in asked], f"rank {rank}"


@pytest.mark.parametrize("group_ranks", [ROWS, COLUMNS], ids=["rows", "columns"])
@pytest.mark.vdist_world_size(min=4, max=4)
@pytest.mark.vdist_requirement("VD-OBJ-004")
def test_peers_are_ranks_within_the_group(
    coordinator_run: CoordinatorRun, world_size: int, group_ranks: list[list[int]]
) -> None:
    """In each of two groups at once, destination and source are named by their ranks within the group."""

    def body(group: Coordinator) -> str:
        received = ""
        for src, dst in pairs_of(2):
            if group.rank_in_group == src:
                group.send_object(f"global rank {group.rank}", dst)
            else:
                received = group.recv_object(src)
        return received

    results = coordinator_run(body, world_size=world_size, group_ranks=group_ranks)

    for first, second in group_ranks:
        assert (results[first], results[second]) == (f"global rank {second}", f"global rank {first}")
