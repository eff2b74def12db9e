"""Operations that an implementation declares not to have: all ranks refuse them, and the group goes on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pytest_vdist import Capabilities, Coordinator, CoordinatorRun


def calls(group: Coordinator) -> dict[str, Callable[[], object]]:
    """Return a good call of every operation that may be declared as unsupported, by its name."""
    x = torch.ones(2 * group.world_size, device=group.device)
    peer = (group.rank_in_group + 1) % group.world_size
    return {
        "all_reduce": lambda: group.all_reduce(x),
        "all_gather": lambda: group.all_gather(x, dim=0),
        "all_gatherv": lambda: group.all_gatherv(x, sizes=[len(x)] * group.world_size),
        "reduce_scatter": lambda: group.reduce_scatter(x, dim=0),
        "reduce_scatterv": lambda: group.reduce_scatterv(x, dim=0, sizes=[2] * group.world_size),
        "gather": lambda: group.gather(x, dim=0),
        "broadcast": lambda: group.broadcast(x),
        "broadcast_object": lambda: group.broadcast_object("object"),
        "broadcast_object_list": lambda: group.broadcast_object_list(["object"]),
        "send_object": lambda: group.send_object("object", dst=peer),
        "isend_object": lambda: group.isend_object("object", dst=peer),
        "broadcast_tensor_dict": lambda: group.broadcast_tensor_dict({"x": x}),
        "send_tensor_dict": lambda: group.send_tensor_dict({"x": x}, dst=peer),
        "isend_tensor_dict": lambda: group.isend_tensor_dict({"x": x}, dst=peer),
        "send": lambda: group.send(x, dst=peer),
        "barrier": group.barrier,
    }


@pytest.mark.vdist_world_size(min=2, max=3)
@pytest.mark.vdist_requirement("VD-ERR-010")
def test_what_is_declared_unsupported_is_refused_on_every_rank(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """A good call of each unsupported operation raises on every rank, and the group works after it."""

    def body(group: Coordinator, unsupported: list[str]) -> tuple[list[str], list[float]]:
        accepted = []
        for name in unsupported:
            try:
                calls(group)[name]()
            except Exception:  # noqa: S112 - any error is a refusal, silence is not
                continue
            accepted.append(name)
        if "broadcast" in unsupported:
            return accepted, [0.0]
        mine = torch.tensor([float(group.rank_in_group)], device=group.device)
        return accepted, group.broadcast(mine, src=0).tolist()

    features = {name for name in capabilities.unsupported if name.startswith("process_group")}
    named = sorted({*capabilities.unsupported} - features - {"split_group"})
    for rank, (accepted, received) in enumerate(coordinator_run(body, named, world_size=world_size)):
        assert accepted == [], f"rank {rank} does what is declared unsupported: {', '.join(accepted)}"
        assert received == [0.0], f"rank {rank} got wrong data after refused calls"
