"""send and recv: tensors of every dtype, size and layout, and the memory that they are in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from pytest_vdist import Coordinator, CoordinatorRun
from pytest_vdist.judge import LAYOUTS, aliases, fit_values, guard, layout_fits, movement_input, observe
from pytest_vdist.judge.assertions import assert_exact, describe_call
from pytest_vdist.judge.observation import Observation

SHAPES = [(0,), (3, 0, 2), (), (1,), (3,), (127,), (5, 3), (2, 3, 2, 5), (65_537,)]
LARGE = (3 << 20) + 1
VIEWED = (torch.float32, torch.float16, torch.int64, torch.bool)

Message = tuple[tuple[int, ...], torch.dtype, str]

pytestmark = pytest.mark.vdist_operations("send")


def values_of(case: Message, seed: int) -> torch.Tensor:
    shape, dtype, layout = case
    return fit_values(movement_input(shape, dtype, rank=0, seed=seed), layout)


def exchange(group: Coordinator, messages: Sequence[Message], src: int, dst: int) -> list[Observation]:
    """Send the messages from `src` to `dst`, one after the other; return what this rank sees of them."""
    seen = []
    for seed, case in enumerate(messages):
        shape, dtype, layout = case
        if group.rank_in_group == src:
            guarded = guard(values_of(case, seed), layout, group.device)
            group.send(guarded.tensor, dst)
            seen.append(observe(None, [guarded]))
        elif group.rank_in_group == dst:
            seen.append(observe(group.recv(shape, dtype, src)))
    return seen


def assert_exchanged(run: CoordinatorRun, messages: Sequence[Message], world_size: int) -> None:
    """Exchange the messages from the first to the last rank, and judge what both of them see."""
    src, dst = 0, world_size - 1
    results = run(exchange, list(messages), src, dst, world_size=world_size)
    for seed, (case, sent, received) in enumerate(zip(messages, results[src], results[dst], strict=True)):
        shape, dtype, layout = case
        assert_exact(
            [sent, received],
            [None, values_of(case, seed)],
            call=describe_call("send/recv", src=src, dst=dst, shape=shape, dtype=dtype, layout=layout),
        )


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-P2P-003", "VD-P2P-007")
def test_every_dtype_is_moved_in_every_size(
    coordinator_run: CoordinatorRun, world_size: int, movement_dtypes: list[torch.dtype]
) -> None:
    """Every bit of every declared dtype arrives, in tensors of none to many elements; the sent one stays."""
    messages = [(shape, dtype, "contiguous") for dtype in movement_dtypes for shape in SHAPES]
    assert_exchanged(coordinator_run, messages, world_size)


@pytest.mark.vdist_world_size(min=2, max=2)
@pytest.mark.vdist_requirement("VD-P2P-003")
def test_large_tensors_arrive_whole(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Tensors of millions of elements arrive to the last byte."""
    messages = [((LARGE,), torch.uint8, "contiguous"), ((LARGE,), torch.bfloat16, "contiguous")]
    assert_exchanged(coordinator_run, messages, world_size)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-P2P-004", "VD-P2P-007")
def test_views_are_sent_as_their_copies(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Views of any strides and offset arrive with their values; neither they nor what is around change."""
    messages = [
        (shape, dtype, layout)
        for layout in LAYOUTS
        for shape in ((6,), (4, 3), (2, 3, 5), (2, 3, 2, 2), (0, 3))
        for dtype in VIEWED
        if layout_fits(layout, shape)
    ]
    assert_exchanged(coordinator_run, messages, world_size)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-P2P-007")
def test_received_tensors_share_no_memory(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Every received tensor is its own: later ones leave it alone, and writing to it changes no other."""

    def body(group: Coordinator) -> Any:
        rank, last = group.rank_in_group, group.world_size - 1
        sent = [torch.full((1000,), n, device=group.device) for n in range(4)]
        if rank == 0:
            for tensor in sent:
                group.send(tensor, last)
            group.barrier()
            return [n for n, tensor in enumerate(sent) if bool((tensor != n).any())]
        if rank < last:
            group.barrier()
            return []
        received = [group.recv((1000,), sent[0].dtype, 0) for _ in sent]
        changed = [n for n, tensor in enumerate(received) if not torch.equal(tensor, sent[n])]
        shared = [(i, j) for i in range(4) for j in range(i) if aliases(received[i], received[j])]
        received[0].fill_(-1)
        group.barrier()
        return changed + shared

    assert coordinator_run(body, world_size=world_size) == [[]] * world_size
