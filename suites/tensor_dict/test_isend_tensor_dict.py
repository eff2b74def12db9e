"""isend_tensor_dict and irecv_tensor_dict: dictionaries on their way while the ranks do something else.

Large device tensors go one way only here, from rank to rank + 1. A device's library may hold a large message
back until the receiver asks, and with it whatever stands behind it in its queue.
"""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from pytest_vdist import Coordinator, CoordinatorRun, own_coordinator
from pytest_vdist.judge import movement_input, poisoned
from pytest_vdist.judge.tensor_dicts import tensor_dict_differences, tensor_dict_input

BATCH = 100


def large_dict(src: int, seed: int, device: torch.device) -> dict[str, Any]:
    """Make tensors that no buffer of a transport holds, views among them, and small ones between them."""
    matrix = movement_input((511, 1024), torch.float32, rank=src, seed=seed)
    return {
        "large": matrix.to(device),
        "small": torch.full((3,), 10 * src + seed, device=device),
        "large on the CPU": matrix.flip(0),
        "every second column": matrix[:, ::2],
        "values": [src, seed, None],
        "empty": torch.empty(0, 2, device=device),
        "int16": torch.full((5,), src, dtype=torch.int16),
        "columns": matrix.to(device).t(),
    }


def connect(group: Coordinator) -> None:
    """Exchange a first message along the chain: it may have to connect the ranks, which takes both."""
    if group.rank_in_group > 0:
        group.recv_tensor_dict()
    if group.rank_in_group < group.world_size - 1:
        group.send_tensor_dict({"device": torch.zeros(1, device=group.device), "cpu": torch.zeros(1)})


def reuse_freed_memory(device: torch.device) -> list[torch.Tensor]:
    """Take and overwrite the memory that tensors of `large_dict` had, if they were freed."""
    gc.collect()
    shapes = [(511, 1024), (511, 512), (3,), (5,)]
    return [
        poisoned(shape, torch.float32, where)
        for shape in shapes
        for where in (device, "cpu")
        for _ in range(4)
    ]


def is_last(group: Coordinator) -> bool:
    return group.rank_in_group == group.world_size - 1


@pytest.mark.parametrize(
    "keep_handles",
    [
        pytest.param(True, marks=pytest.mark.vdist_requirement("VD-TD-007"), id="handles kept"),
        pytest.param(False, marks=pytest.mark.vdist_requirement("VD-TD-015"), id="handles dropped"),
    ],
)
@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-002")
def test_sends_need_neither_the_receiver_nor_the_caller(
    coordinator_run: CoordinatorRun, world_size: int, keep_handles: bool
) -> None:
    """All ranks start their sends, drop all but the handles, and meet, before any rank asks for anything."""

    def body(group: Coordinator) -> list[str]:
        rank = group.rank_in_group
        connect(group)
        handles: list[Any] = []
        for seed in (0, 1) if not is_last(group) else ():
            started = group.isend_tensor_dict(large_dict(rank, seed, group.device), rank + 1)
            if keep_handles:
                handles += started
            del started
        reused = reuse_freed_memory(group.device)
        group.barrier()
        received = [group.recv_tensor_dict(rank - 1) for _ in (0, 1)] if rank > 0 else []
        for handle in handles:
            handle.wait()
        group.barrier()
        del reused
        return [
            f"dictionary {seed}: {difference}"
            for seed, got in enumerate(received)
            for difference in tensor_dict_differences(got, large_dict(rank - 1, seed, group.device))
        ]

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-008")
def test_receives_are_complete_after_handles_and_postprocess(
    coordinator_run: CoordinatorRun, world_size: int, movement_dtypes: list[torch.dtype]
) -> None:
    """Receives under way at once give the sender's dictionaries, in whatever order handles are waited for."""

    def body(group: Coordinator) -> list[str]:
        def made_by(src: int) -> list[dict[str, Any]]:
            small = tensor_dict_input(movement_dtypes, rank=src, seed=src, device=group.device)
            return [small, {}, large_dict(src, 1, group.device), large_dict(src, 2, group.device)]

        rank = group.rank_in_group
        expected = made_by(rank - 1)
        sending: list[Any] = []
        if not is_last(group):
            sending = [handle for each in made_by(rank) for handle in group.isend_tensor_dict(each, rank + 1)]
        receiving = [group.irecv_tensor_dict(rank - 1) for _ in expected] if rank > 0 else []
        found = []
        # Backwards, messages and tensors: what was sent last is the last to arrive if it was not waited for.
        for got, handles, postprocess in reversed(receiving):
            _wait(list(handles)[:: 1 if len(expected) % 2 else -1])
            for function in postprocess:
                function()
            found += tensor_dict_differences(_backwards(got), _backwards(expected.pop()))
        _wait(sending)
        return found

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-006", "VD-TD-007", "VD-TD-008")
def test_neighbours_exchange_in_both_directions_at_once(
    coordinator_run: CoordinatorRun, world_size: int
) -> None:
    """Every rank sends to both neighbours, then receives from both; they are the default peers too."""

    def body(world: Coordinator) -> list[str]:
        # A device's library may connect ranks at the first message between them, which must not wait either.
        group = own_coordinator([list(range(world.world_size))])

        def made_by(src: int, dst: int) -> dict[str, Any]:
            large = movement_input((1 << 18,), torch.float32, rank=src, seed=dst)
            return {"on the CPU": large, "small": torch.full((17,), 10 * src + dst, device=group.device)}

        size, rank = group.world_size, group.rank_in_group
        following, previous = (rank + 1) % size, (rank - 1) % size
        sending = [
            *group.isend_tensor_dict(made_by(rank, following)),
            *group.isend_tensor_dict(made_by(rank, previous), previous),
        ]
        group.barrier()
        receiving = [(previous, group.irecv_tensor_dict()), (following, group.irecv_tensor_dict(following))]
        found = []
        for src, (got, handles, postprocess) in receiving:
            _wait(handles)
            for function in postprocess:
                function()
            found += [f"from {src}: {each}" for each in tensor_dict_differences(got, made_by(src, rank))]
        _wait(sending)
        group.destroy()
        return found

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-TD-009")
def test_handles_can_be_waited_for_again(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Second waits return for sends and receives, at once and after later messages, which still arrive."""

    def body(group: Coordinator) -> list[str]:
        rank = group.rank_in_group
        found: list[str] = []
        all_handles: list[Any] = []
        for seed in range(3):
            sending: Sequence[Any] = []
            if not is_last(group):
                sent = tensor_dict_input([torch.float32], rank=rank, seed=seed, device=group.device)
                sending = group.isend_tensor_dict(sent, rank + 1)
            if rank > 0:
                got, handles, _ = group.irecv_tensor_dict(rank - 1)
                all_handles += handles
                _wait(handles)
                _wait(handles)
                want = tensor_dict_input([torch.float32], rank=rank - 1, seed=seed, device=group.device)
                found += tensor_dict_differences(got, want)
            all_handles += sending
            _wait(sending)
            _wait(all_handles)
        return found

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size


@pytest.mark.vdist_world_size(min=2, max=2)
@pytest.mark.vdist_requirement("VD-TD-015", "VD-TD-016")
def test_sends_that_nobody_waits_for_keep_bounded_resources(
    coordinator_run: CoordinatorRun, world_size: int
) -> None:
    """Of 200 sends whose handles are dropped all arrive, and they do not pile up in the sender."""

    def body(group: Coordinator) -> list[tuple[int, int, int]] | list[float]:
        usage: list[tuple[int, int, int]] = []
        received: list[float] = []
        memory: list[weakref.ref[_Memory]] = []
        for batch in range(2):
            for n in range(BATCH):
                if group.rank_in_group == 0:
                    owner = _Memory(4 * 257)
                    memory.append(weakref.ref(owner))
                    tensor = torch.frombuffer(owner, dtype=torch.float32).fill_(batch * BATCH + n)
                    group.isend_tensor_dict({"on the CPU": tensor, "on the device": tensor.to(group.device)})
                    del owner, tensor
                else:
                    got = group.recv_tensor_dict()
                    assert got is not None
                    assert torch.equal(got["on the CPU"], got["on the device"].cpu())
                    received.append(got["on the CPU"].unique().item())
            group.barrier()
            gc.collect()
            kept = sum(each() is not None for each in memory)
            usage.append((kept, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))))
        return usage if group.rank_in_group == 0 else received

    usage, received = coordinator_run(body, world_size=world_size)

    assert received == [float(n) for n in range(2 * BATCH)]
    (_, first_files, first_threads), (tensors, files, threads) = usage
    assert tensors <= 1.5 * BATCH, f"tensors kept after each {BATCH} sends: {usage}"
    assert files <= first_files, f"open files after each {BATCH} sends: {usage}"
    assert threads <= first_threads, f"threads after each {BATCH} sends: {usage}"


class _Memory(bytearray):
    """Memory of a tensor, which lives until the last tensor that uses it is gone."""


def _wait(handles: Sequence[Any]) -> None:
    for handle in handles:
        handle.wait()


def _backwards(tensor_dict: dict[str, Any] | None) -> dict[str, Any]:
    assert tensor_dict is not None
    return dict(reversed(tensor_dict.items()))
