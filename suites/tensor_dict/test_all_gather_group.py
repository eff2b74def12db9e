"""Tensor dictionaries between pipeline stages whose tensor-parallel ranks share the work of sending.

Global ranks 0 and 1 are the first stage, 2 and 3 the second; 0 sends to 2, and 1 to 3. What both ranks of a
stage hold may travel in slices, put together by an all-gather within the receiving stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from pytest_vdist import Coordinator, CoordinatorRun, coordinator
from pytest_vdist.judge import LAYOUTS, fit_values, guard, layout_fits, movement_input
from pytest_vdist.judge.tensor_dicts import tensor_dict_differences, tensor_dict_input

PIPELINES, STAGES = [[0, 2], [1, 3]], [[0, 1], [2, 3]]

pytestmark = pytest.mark.vdist_world_size(min=4, max=4)

blocking = pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "non-blocking"])


def transfer(
    pipeline: Coordinator,
    sent: dict[str, Any],
    *,
    src: int,
    blocking: bool,
    all_gather_tensors: Mapping[str, bool] | None = None,
) -> dict[str, Any] | None:
    """Send from stage `src` to the other, with the stage as all-gather group; return what the other gets."""
    stage = coordinator(STAGES)
    if pipeline.rank_in_group == src:
        if blocking:
            pipeline.send_tensor_dict(sent, 1 - src, stage, all_gather_tensors)
        else:
            for handle in pipeline.isend_tensor_dict(sent, 1 - src, stage, all_gather_tensors):
                handle.wait()
        return None
    if blocking:
        return pipeline.recv_tensor_dict(src, stage, all_gather_tensors)
    received, handles, postprocess = pipeline.irecv_tensor_dict(src, stage, all_gather_tensors)
    for handle in handles:
        handle.wait()
    for function in postprocess:
        function()
    return received


@blocking
@pytest.mark.vdist_requirement("VD-TD-010", "VD-TD-012")
def test_replicated_tensors_arrive_whole(
    coordinator_run: CoordinatorRun, world_size: int, movement_dtypes: list[torch.dtype], blocking: bool
) -> None:
    """What all ranks of a stage hold alike arrives whole, of sizes that divide by their number and others."""

    def body(pipeline: Coordinator) -> list[str]:
        found = []
        for src in (0, 1):
            sent = tensor_dict_input(movement_dtypes, rank=src, seed=1, device=pipeline.device)
            sent["large"] = movement_input((513, 64), torch.float32, rank=src, seed=2).to(pipeline.device)
            want = dict(sent)
            received = transfer(pipeline, sent, src=src, blocking=blocking)
            kept = sent if received is None else received
            found += [f"stage {src} sends: {each}" for each in tensor_dict_differences(kept, want)]
        return found

    assert coordinator_run(body, world_size=world_size, group_ranks=PIPELINES) == [[]] * world_size


@pytest.mark.vdist_requirement("VD-TD-010", "VD-TD-012")
def test_replicated_views_arrive_as_they_look(coordinator_run: CoordinatorRun, world_size: int) -> None:
    """Views of any strides and offset arrive with their values; neither they nor what is around change."""

    def body(pipeline: Coordinator) -> list[str]:
        guarded = {
            f"{layout} {shape}": guard(
                fit_values(movement_input(shape, torch.bfloat16, rank=0, seed=3), layout),
                layout,
                pipeline.device,
            )
            for layout in LAYOUTS
            for shape in ((6,), (4, 3), (3, 5), (2, 3, 5))
            if layout_fits(layout, shape)
        }
        sent = {key: each.tensor for key, each in guarded.items()}
        received = transfer(pipeline, sent, src=0, blocking=True)
        found = [] if received is None else tensor_dict_differences(received, sent)
        return found + [
            f"{key} was changed by the call"
            for key, each in guarded.items()
            if not (each.values_intact() and each.canaries_intact())
        ]

    assert coordinator_run(body, world_size=world_size, group_ranks=PIPELINES) == [[]] * world_size


@blocking
@pytest.mark.vdist_requirement("VD-TD-011", "VD-TD-010")
def test_a_tensor_that_differs_within_the_stage_is_sent_whole(
    coordinator_run: CoordinatorRun, world_size: int, blocking: bool
) -> None:
    """A residual that each rank of the stage has for itself arrives at the peer of that rank, unmixed."""

    def body(pipeline: Coordinator) -> list[str]:
        found = []
        for src in (0, 1):
            sender = pipeline.ranks[src]
            sent = {
                "hidden": movement_input((8, 6), torch.bfloat16, rank=src, seed=4).to(pipeline.device),
                "residual": movement_input((8, 6), torch.bfloat16, rank=sender, seed=5).to(pipeline.device),
                "on the CPU": movement_input((2, 2), torch.int64, rank=sender, seed=6),
                "positions": movement_input((4,), torch.int64, rank=src, seed=7).to(pipeline.device),
            }
            want = {key: value.clone() for key, value in sent.items()}
            replicated = {"residual": False, "on the CPU": False}
            received = transfer(pipeline, sent, src=src, blocking=blocking, all_gather_tensors=replicated)
            kept = sent if received is None else received
            found += [f"rank {sender} sends: {each}" for each in tensor_dict_differences(kept, want)]
        return found

    assert coordinator_run(body, world_size=world_size, group_ranks=PIPELINES) == [[]] * world_size


@pytest.mark.vdist_requirement("VD-TD-011")
def test_all_tensors_may_differ_within_the_stage(
    coordinator_run: CoordinatorRun, world_size: int, movement_dtypes: list[torch.dtype]
) -> None:
    """With every key declared, each rank of a stage sends a dictionary of its own."""

    def body(pipeline: Coordinator) -> list[str]:
        sender = pipeline.ranks[0]
        sent = tensor_dict_input(movement_dtypes, rank=sender, seed=8, device=pipeline.device)
        received = transfer(
            pipeline, sent, src=0, blocking=True, all_gather_tensors=dict.fromkeys(sent, False)
        )
        return [] if received is None else tensor_dict_differences(received, sent)

    assert coordinator_run(body, world_size=world_size, group_ranks=PIPELINES) == [[]] * world_size
