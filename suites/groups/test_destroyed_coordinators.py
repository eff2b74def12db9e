"""Coordinators after their destruction: they refuse by name of the reason, and leave others alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pytest_vdist import Capabilities, Coordinator, DistributedRun, ImplementationSpec, init_settings


def refusals(group: Coordinator, unsupported: list[str]) -> dict[str, str]:
    """Make every call of a destroyed coordinator. Return the text of each error, "" where none came."""
    peer = (group.rank_in_group + 1) % group.world_size
    x = torch.ones(4 * group.world_size, device=group.device)
    sizes = [4] * group.world_size
    calls: dict[str, Callable[[], object]] = {
        "all_reduce": lambda: group.all_reduce(x),
        "all_gather": lambda: group.all_gather(x),
        "all_gatherv": lambda: group.all_gatherv(x[:4], sizes=sizes),
        "reduce_scatter": lambda: group.reduce_scatter(x),
        "reduce_scatterv": lambda: group.reduce_scatterv(x, sizes=sizes),
        "gather": lambda: group.gather(x),
        "broadcast": lambda: group.broadcast(x),
        "broadcast_object": lambda: group.broadcast_object("object"),
        "broadcast_object_list": lambda: group.broadcast_object_list(["object"]),
        "broadcast_tensor_dict": lambda: group.broadcast_tensor_dict({"x": x}),
        "barrier": group.barrier,
        "isend_object": lambda: group.isend_object("object", peer),
        "isend_tensor_dict": lambda: group.isend_tensor_dict({"x": x}, peer),
        "send_object": lambda: group.send_object("object", peer),
        "send_tensor_dict": lambda: group.send_tensor_dict({"x": x}, peer),
        "send": lambda: group.send(x, peer),
        "recv": lambda: group.recv((4,), x.dtype, peer),
        "recv_object": lambda: group.recv_object(peer),
        "recv_tensor_dict": lambda: group.recv_tensor_dict(peer),
        "irecv_tensor_dict": lambda: group.irecv_tensor_dict(peer),
    }
    texts = {}
    for name, call in calls.items():
        if name in unsupported:
            continue
        texts[name] = ""
        try:
            call()
        except Exception as raised:
            texts[name] = str(raised) or type(raised).__name__
    return texts


@pytest.mark.vdist_requirement("VD-GRP-010")
def test_a_destroyed_coordinator_refuses_every_call(
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    capabilities: Capabilities,
    tmp_path: Path,
    world_size: int,
) -> None:
    """Destroyed twice, a coordinator refuses every communication as destroyed."""

    def body(init_method: str, unsupported: list[str]) -> dict[str, str]:
        world = implementation.load()
        world.init(init_settings(init_method))
        group = world.coordinator([list(range(world_size))], name="group")
        group.barrier()
        group.destroy()
        group.destroy()
        texts = refusals(group, unsupported)
        world.destroy()
        return texts

    results = distributed_run(
        body,
        f"file://{tmp_path}/world",
        list(capabilities.unsupported),
        world_size=world_size,
        init_process_group=False,
    )
    for rank, texts in enumerate(results):
        for operation, text in texts.items():
            assert "destroy" in text.lower(), (
                f"rank {rank}: {operation} after destroy must raise an error that says so, got {text!r}"
            )


@pytest.mark.vdist_requirement("VD-GRP-010")
def test_other_coordinators_over_the_same_ranks_live_on(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """Of two coordinators over the same ranks, either works on after the other is destroyed."""
    ranks = list(range(world_size))

    def body(init_method: str) -> list[list[float]]:
        world = implementation.load()
        world.init(init_settings(init_method))
        gathered = []
        for doomed in (0, 1):
            groups = [world.coordinator([ranks], name="group") for _ in range(2)]
            mine = torch.tensor([float(groups[0].rank)], device=groups[0].device)
            groups[doomed].all_gather(mine)
            groups[doomed].destroy()
            gathered.append(groups[1 - doomed].all_gather(mine).tolist())
            groups[1 - doomed].barrier()
        world.destroy()
        return gathered

    results = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    assert results == [[ranks, ranks]] * world_size
