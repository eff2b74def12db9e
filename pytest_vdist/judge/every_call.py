"""A call or more of every operation of a coordinator, for tests of what should make no difference to any."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from .cases import Case


class Capabilities(Protocol):
    """What is declared of an implementation."""

    def supports(self, operation: str, /) -> bool: ...


def collectives(group_size: int, capabilities: Capabilities) -> list[Case]:
    """Return calls of every collective, with each rank of the group as source and destination."""
    sizes = [2 * rank + 1 for rank in range(group_size)]
    parts = {"dim": 0, "sizes": sizes}
    cases = [
        Case("all_reduce", (7,), torch.float32),
        Case("all_gather", (3, 5), torch.float32, {"dim": 0}, values="movement"),
        Case("all_gather", (3, 5), torch.float32, {"dim": -1}, values="movement"),
        Case("all_gatherv", (1, 3), torch.float32, parts, values="movement"),
        Case("reduce_scatter", (4 * group_size, 3), torch.float32, {"dim": 0}),
        Case("reduce_scatter", (2, 2 * group_size), torch.float32, {"dim": -1}),
        Case("reduce_scatterv", (sum(sizes), 2), torch.float32, parts),
    ]
    for rank in range(group_size):
        cases += [
            Case("gather", (2, 3), torch.float32, {"dst": rank, "dim": 0}, values="movement", seed=rank),
            Case("broadcast", (11,), torch.float32, {"src": rank}, values="movement", seed=rank),
        ]
    return [case for case in cases if capabilities.supports(case.operation)]


def pass_messages(group: Any, ranks: list[int], *, dicts: bool) -> dict[str, list[Any]]:
    """Make every call that names a peer, for every peer. Returns what this rank got, by call.

    A tensor or object tells the global rank of its sender. Ranks call in the order of (source, destination).
    Without `dicts`, dictionaries of tensors are left out.
    """
    here = ranks.index(group.rank)
    mine = torch.full((3,), float(group.rank), dtype=torch.float32, device=group.device)
    got: dict[str, list[Any]] = {
        "objects": [],
        "lists": [],
        "dicts": [],
        "p2p": [],
        "p2p_objects": [],
        "p2p_dicts": [],
    }
    for src in range(len(ranks)):
        from_src = {"sender": group.rank, "tensor": mine} if here == src else None
        got["objects"].append(group.broadcast_object(group.rank if here == src else None, src=src))
        got["lists"].append(group.broadcast_object_list([group.rank], src=src)[0])
        if dicts:
            got["dicts"].append(described(group.broadcast_tensor_dict(from_src, src=src)))
    for src in range(len(ranks)):
        for dst in range(len(ranks)):
            if here == src != dst:
                group.send(mine, dst)
                group.send_object(group.rank, dst)
                if dicts:
                    group.send_tensor_dict({"sender": group.rank, "tensor": mine}, dst)
            elif here == dst != src:
                got["p2p"].append(values(group.recv((3,), mine.dtype, src)))
                got["p2p_objects"].append(group.recv_object(src))
                if dicts:
                    got["p2p_dicts"].append(described(group.recv_tensor_dict(src)))
    group.barrier()
    return got


def described(tensor_dict: dict[str, Any] | None) -> tuple[int, list[float]]:
    assert tensor_dict is not None
    return tensor_dict["sender"], values(tensor_dict["tensor"])


def values(tensor: torch.Tensor) -> list[float]:
    assert tensor.dtype == torch.float32, f"a tensor of float32 arrived as {tensor.dtype}"
    numbers: list[float] = tensor.tolist()
    return numbers


def messages_expected(ranks: list[int], rank: int, *, dicts: bool) -> dict[str, list[Any]]:
    others = [other for other in ranks if other != rank]
    return {
        "objects": ranks,
        "lists": ranks,
        "dicts": [(source, [source] * 3) for source in ranks if dicts],
        "p2p": [[source] * 3 for source in others],
        "p2p_objects": others,
        "p2p_dicts": [(source, [source] * 3) for source in others if dicts],
    }
