"""isend_object: Python objects sent without waiting for the receiver."""

from __future__ import annotations

import gc
import random
from hashlib import sha256

import pytest

from pytest_vdist import Coordinator, CoordinatorRun

# A few bytes fit into the buffers of any transport; megabytes must be kept by the sender.
SIZES = [0, 100, 5 << 20, 1, 300_007]


def payload(src: int, size: int) -> bytes:
    return random.Random(f"{src} {size}").randbytes(size)  # noqa: S311 - bytes that differ, not secrets


def digests(src: int) -> list[str]:
    return [sha256(payload(src, size)).hexdigest() for size in SIZES]


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-OBJ-007", "VD-OBJ-006")
def test_sends_return_before_the_receiver_asks(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Every rank starts its sends and meets the others in a barrier before any rank asks for an object."""

    def body(group: Coordinator) -> list[str]:
        size, rank = group.world_size, group.rank_in_group
        handles = [group.isend_object(payload(rank, n), (rank + 1) % size) for n in SIZES]
        group.barrier()
        received = [sha256(group.recv_object((rank - 1) % size)).hexdigest() for _ in SIZES]
        for handle in handles:
            handle.wait()
        return received

    assert coordinator_run(body, world_size=world_size) == [
        digests((rank - 1) % world_size) for rank in range(world_size)
    ]


@pytest.mark.parametrize("keep_handles", [True, False], ids=["handles kept", "handles dropped"])
@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-OBJ-007")
def test_the_object_arrives_as_it_was_when_sent(
    coordinator_run: CoordinatorRun, world_size: int, keep_handles: bool
) -> None:
    """What the caller does with the object after the call, changing or dropping it, does not reach anyone."""

    def body(group: Coordinator) -> list[str]:
        size, rank = group.world_size, group.rank_in_group
        handles = []
        for n in SIZES:
            obj = bytearray(payload(rank, n))
            handle = group.isend_object(obj, (rank + 1) % size)
            obj[:] = b"\xa5" * n
            del obj
            if keep_handles:
                handles.append(handle)
            del handle
        gc.collect()
        reused = [bytearray(b"\x5a" * n) for n in SIZES for _ in range(3)]
        group.barrier()
        received = [sha256(group.recv_object((rank - 1) % size)).hexdigest() for _ in SIZES]
        group.barrier()
        for handle in handles:
            handle.wait()
        assert all(each == b"\x5a" * len(each) for each in reused)
        return received

    assert coordinator_run(body, world_size=world_size) == [
        digests((rank - 1) % world_size) for rank in range(world_size)
    ]


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-OBJ-007")
def test_a_handle_can_be_waited_for_again(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Second and third waits return, at once and after later sends, and later objects still arrive."""

    def body(group: Coordinator) -> list[str]:
        size, rank = group.world_size, group.rank_in_group
        following, previous = (rank + 1) % size, (rank - 1) % size
        large = group.isend_object(bytes(1 << 20), following)
        received = [str(len(group.recv_object(previous)))]
        large.wait()
        large.wait()
        small = group.isend_object(f"small {rank}", following)
        received.append(group.recv_object(previous))
        for handle in (small, large, small):
            handle.wait()
        last = group.isend_object(f"last {rank}", following)
        received.append(group.recv_object(previous))
        last.wait()
        return received

    results = coordinator_run(body, world_size=world_size)

    for rank, received in enumerate(results):
        previous = (rank - 1) % world_size
        assert received == [str(1 << 20), f"small {previous}", f"last {previous}"], f"rank {rank}"
