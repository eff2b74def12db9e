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


_CALLS_OF_KIND = {
    "objects": ("broadcast_object",),
    "lists": ("broadcast_object_list",),
    "dicts": ("broadcast_tensor_dict",),
    "p2p": ("send",),
    "p2p_objects": ("send_object",),
    "p2p_dicts": ("send_tensor_dict",),
}


def message_kinds(capabilities: Capabilities) -> frozenset[str]:
    """Return the kinds of messages whose calls an implementation has: those of `pass_messages`."""
    return frozenset(
        kind for kind, calls in _CALLS_OF_KIND.items() if all(capabilities.supports(call) for call in calls)
    )


def pass_messages(group: Any, ranks: list[int], kinds: frozenset[str]) -> dict[str, list[Any]]:
    """Make every call of `kinds` that names a peer, for every peer. Returns what this rank got, by kind.

    A tensor or object tells the global rank of its sender. Ranks call in the order of (source, destination).
    """
    here = ranks.index(group.rank)
    got: dict[str, list[Any]] = {kind: [] for kind in kinds}
    mine = torch.full((3,), float(group.rank), dtype=torch.float32, device=group.device)
    for src in range(len(ranks)):
        _broadcast(group, src, mine, here == src, got)
    for src in range(len(ranks)):
        for dst in range(len(ranks)):
            if here == src != dst:
                _send(group, dst, mine, kinds)
            elif here == dst != src:
                _receive(group, src, mine, got)
    group.barrier()
    return got


def _broadcast(group: Any, src: int, mine: torch.Tensor, is_source: bool, got: dict[str, list[Any]]) -> None:
    if "objects" in got:
        got["objects"].append(group.broadcast_object(group.rank if is_source else None, src=src))
    if "lists" in got:
        got["lists"].append(group.broadcast_object_list([group.rank], src=src)[0])
    if "dicts" in got:
        given = {"sender": group.rank, "tensor": mine} if is_source else None
        got["dicts"].append(described(group.broadcast_tensor_dict(given, src=src)))


def _send(group: Any, dst: int, mine: torch.Tensor, kinds: frozenset[str]) -> None:
    if "p2p" in kinds:
        group.send(mine, dst)
    if "p2p_objects" in kinds:
        group.send_object(group.rank, dst)
    if "p2p_dicts" in kinds:
        group.send_tensor_dict({"sender": group.rank, "tensor": mine}, dst)


def _receive(group: Any, src: int, mine: torch.Tensor, got: dict[str, list[Any]]) -> None:
    if "p2p" in got:
        got["p2p"].append(values(group.recv(mine.shape, mine.dtype, src)))
    if "p2p_objects" in got:
        got["p2p_objects"].append(group.recv_object(src))
    if "p2p_dicts" in got:
        got["p2p_dicts"].append(described(group.recv_tensor_dict(src)))


def described(tensor_dict: dict[str, Any] | None) -> tuple[int, list[float]]:
    assert tensor_dict is not None
    return tensor_dict["sender"], values(tensor_dict["tensor"])


def values(tensor: torch.Tensor) -> list[float]:
    assert tensor.dtype == torch.float32, f"a tensor of float32 arrived as {tensor.dtype}"
    numbers: list[float] = tensor.tolist()
    return numbers


def messages_expected(ranks: list[int], rank: int, kinds: frozenset[str]) -> dict[str, list[Any]]:
    """Return what `pass_messages` returns on one of the `ranks` of a group."""
    others = [other for other in ranks if other != rank]
    by_kind: dict[str, list[Any]] = {
        "objects": ranks,
        "lists": ranks,
        "dicts": [(source, [source] * 3) for source in ranks],
        "p2p": [[source] * 3 for source in others],
        "p2p_objects": others,
        "p2p_dicts": [(source, [source] * 3) for source in others],
    }
    return {kind: by_kind[kind] for kind in kinds}
