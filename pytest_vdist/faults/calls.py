"""Every call of a coordinator that waits for another rank: how each rank makes it, and what it returns."""

# ruff: noqa: ARG005 - in a table of functions not each needs every number

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pytest_vdist.implementations.protocol import Capabilities, Coordinator

DEVICE_LIMIT, CPU_LIMIT = "timeout", "cpu_timeout"


@dataclass(frozen=True)
class BlockingCall:
    """A call for which the ranks of a group need one of them, the `peer`.

    `make(group, peer)` makes this rank's part of it; `peer` is a rank within the group. It returns plain
    data, so that it returns after the device has done its work. `result(world_size, rank, peer)` is what it
    returns where all take part. `limit` names the setting that ends it. A `buffered` call may return before
    the peer has come. `operation` is the method's name.
    """

    name: str
    operation: str
    limit: str
    make: Callable[[Coordinator, int], Any]
    result: Callable[[int, int, int], Any]
    buffered: bool = False


def value_of(rank: int, length: int = 2) -> list[float]:
    """Return the data of a rank: by position and by rank, and exact in any order of summation."""
    return [100.0 * (rank + 1) + position for position in range(length)]


def _own(group: Coordinator, length: int = 2) -> torch.Tensor:
    return torch.tensor(value_of(group.rank_in_group, length), device=group.device)


def _sum(world_size: int, length: int) -> list[float]:
    return [
        sum(column) for column in zip(*(value_of(rank, length) for rank in range(world_size)), strict=True)
    ]


def _sizes(world_size: int) -> list[int]:
    return [1 + rank for rank in range(world_size)]


def _joined(world_size: int, sizes: list[int]) -> list[float]:
    return [value for rank in range(world_size) for value in value_of(rank, sizes[rank])]


def _others(group: Coordinator) -> list[int]:
    return [rank for rank in range(group.world_size) if rank != group.rank_in_group]


def waiting_root(peer: int) -> int:
    """Return the rank to which `gather` goes: the first one that is not the peer."""
    return 1 if peer == 0 else 0


def _all_gatherv(group: Coordinator, sizes: list[int] | None) -> Any:
    length = _sizes(group.world_size)[group.rank_in_group]
    gathered = group.all_gatherv(_own(group, length), dim=0, sizes=sizes)
    assert isinstance(gathered, torch.Tensor)
    return gathered.tolist()


def _reduce_scatterv(group: Coordinator) -> Any:
    sizes = _sizes(group.world_size)
    chunk: torch.Tensor = group.reduce_scatterv(_own(group, sum(sizes)), dim=0, sizes=sizes)
    return chunk.tolist()


def _chunk(world_size: int, rank: int) -> list[float]:
    sizes = _sizes(world_size)
    start = sum(sizes[:rank])
    return _sum(world_size, sum(sizes))[start : start + sizes[rank]]


def _gather(group: Coordinator, peer: int) -> Any:
    gathered = group.gather(_own(group), dst=waiting_root(peer), dim=0)
    return None if gathered is None else gathered.tolist()


def _between_peer_and_others(
    group: Coordinator, peer: int, send: Callable[[int], Any], receive: Callable[[int], Any], *, to_peer: bool
) -> Any:
    """Let every other rank send to the peer, or receive from it."""
    own = group.rank_in_group
    if own != peer:
        return send(peer) if to_peer else receive(peer)
    parts = [receive(rank) if to_peer else send(rank) for rank in _others(group)]
    return parts if to_peer else None


def _tensors(group: Coordinator, peer: int, *, to_peer: bool) -> Any:
    return _between_peer_and_others(
        group,
        peer,
        lambda rank: group.send(_own(group), dst=rank),
        lambda rank: group.recv((2,), torch.float32, src=rank).tolist(),
        to_peer=to_peer,
    )


def _objects(group: Coordinator, peer: int, *, to_peer: bool) -> Any:
    return _between_peer_and_others(
        group,
        peer,
        lambda rank: group.send_object(value_of(group.rank_in_group), rank),
        group.recv_object,
        to_peer=to_peer,
    )


def _isend_object(group: Coordinator, peer: int) -> Any:
    def send(rank: int) -> None:
        group.isend_object(value_of(group.rank_in_group), rank).wait()

    return _between_peer_and_others(group, peer, send, group.recv_object, to_peer=True)


def _dictionary(group: Coordinator) -> dict[str, Any]:
    """Return data on the CPU: tensors on the device would obey the limit of the device."""
    return {"tensor": torch.tensor(value_of(group.rank_in_group)), "number": group.rank_in_group}


def _plain(dictionary: dict[str, Any] | None) -> Any:
    return None if dictionary is None else [dictionary["tensor"].tolist(), dictionary["number"]]


def _tensor_dicts(group: Coordinator, peer: int, *, to_peer: bool) -> Any:
    return _between_peer_and_others(
        group,
        peer,
        lambda rank: _plain(group.send_tensor_dict(_dictionary(group), dst=rank)),
        lambda rank: _plain(group.recv_tensor_dict(src=rank)),
        to_peer=to_peer,
    )


def _isend_tensor_dict(group: Coordinator, rank: int) -> None:
    dictionary = _dictionary(group)
    for handle in group.isend_tensor_dict(dictionary, dst=rank):
        handle.wait()


def _irecv_tensor_dict(group: Coordinator, rank: int) -> Any:
    dictionary, handles, postprocess = group.irecv_tensor_dict(src=rank)
    for handle in handles:
        handle.wait()
    for function in postprocess:
        function()
    return _plain(dictionary)


def _started_tensor_dicts(group: Coordinator, peer: int, *, to_peer: bool) -> Any:
    return _between_peer_and_others(
        group,
        peer,
        lambda rank: _isend_tensor_dict(group, rank),
        lambda rank: _irecv_tensor_dict(group, rank),
        to_peer=to_peer,
    )


def _broadcast_tensor_dict(group: Coordinator, peer: int) -> Any:
    given = _dictionary(group) if group.rank_in_group == peer else None
    return _plain(group.broadcast_tensor_dict(given, src=peer))


def _sent(entry: Callable[[int], Any]) -> Callable[[int, int, int], Any]:
    """Return the results of a message to the peer: nothing, but for the peer, who gets one from each."""
    return lambda size, rank, peer: (
        [entry(other) for other in range(size) if other != peer] if rank == peer else None
    )


def _received(entry: Callable[[int], Any]) -> Callable[[int, int, int], Any]:
    return lambda size, rank, peer: None if rank == peer else entry(peer)


def _dict_entry(rank: int) -> Any:
    return [value_of(rank), rank]


CALLS = (
    BlockingCall(
        "all_reduce",
        "all_reduce",
        DEVICE_LIMIT,
        lambda group, peer: group.all_reduce(_own(group)).tolist(),
        lambda size, rank, peer: _sum(size, 2),
    ),
    BlockingCall(
        "all_gather",
        "all_gather",
        DEVICE_LIMIT,
        lambda group, peer: group.all_gather(_own(group), dim=0).tolist(),
        lambda size, rank, peer: _joined(size, [2] * size),
    ),
    BlockingCall(
        "all_gatherv",
        "all_gatherv",
        DEVICE_LIMIT,
        lambda group, peer: _all_gatherv(group, _sizes(group.world_size)),
        lambda size, rank, peer: _joined(size, _sizes(size)),
    ),
    BlockingCall(
        "reduce_scatter",
        "reduce_scatter",
        DEVICE_LIMIT,
        lambda group, peer: group.reduce_scatter(_own(group, 2 * group.world_size), dim=0).tolist(),
        lambda size, rank, peer: _sum(size, 2 * size)[2 * rank : 2 * rank + 2],
    ),
    BlockingCall(
        "reduce_scatterv",
        "reduce_scatterv",
        DEVICE_LIMIT,
        lambda group, peer: _reduce_scatterv(group),
        lambda size, rank, peer: _chunk(size, rank),
    ),
    BlockingCall(
        "gather",
        "gather",
        DEVICE_LIMIT,
        _gather,
        lambda size, rank, peer: _joined(size, [2] * size) if rank == waiting_root(peer) else None,
        buffered=True,
    ),
    BlockingCall(
        "broadcast",
        "broadcast",
        DEVICE_LIMIT,
        lambda group, peer: group.broadcast(_own(group), src=peer).tolist(),
        lambda size, rank, peer: value_of(peer),
    ),
    BlockingCall(
        "send",
        "send",
        DEVICE_LIMIT,
        lambda group, peer: _tensors(group, peer, to_peer=True),
        _sent(value_of),
        buffered=True,
    ),
    BlockingCall(
        "recv",
        "recv",
        DEVICE_LIMIT,
        lambda group, peer: _tensors(group, peer, to_peer=False),
        _received(value_of),
    ),
    BlockingCall(
        "all_gatherv without sizes",
        "all_gatherv",
        CPU_LIMIT,
        lambda group, peer: _all_gatherv(group, None),
        lambda size, rank, peer: _joined(size, _sizes(size)),
    ),
    BlockingCall(
        "barrier", "barrier", CPU_LIMIT, lambda group, peer: group.barrier(), lambda size, rank, peer: None
    ),
    BlockingCall(
        "broadcast_object",
        "broadcast_object",
        CPU_LIMIT,
        lambda group, peer: group.broadcast_object(value_of(group.rank_in_group), src=peer),
        lambda size, rank, peer: value_of(peer),
    ),
    BlockingCall(
        "broadcast_object_list",
        "broadcast_object_list",
        CPU_LIMIT,
        lambda group, peer: group.broadcast_object_list([group.rank_in_group, "x"], src=peer),
        lambda size, rank, peer: [peer, "x"],
    ),
    BlockingCall(
        "send_object",
        "send_object",
        CPU_LIMIT,
        lambda group, peer: _objects(group, peer, to_peer=True),
        _sent(value_of),
        buffered=True,
    ),
    BlockingCall(
        "recv_object",
        "recv_object",
        CPU_LIMIT,
        lambda group, peer: _objects(group, peer, to_peer=False),
        _received(value_of),
    ),
    BlockingCall("isend_object", "isend_object", CPU_LIMIT, _isend_object, _sent(value_of), buffered=True),
    BlockingCall(
        "broadcast_tensor_dict",
        "broadcast_tensor_dict",
        CPU_LIMIT,
        _broadcast_tensor_dict,
        lambda size, rank, peer: _dict_entry(peer),
    ),
    BlockingCall(
        "send_tensor_dict",
        "send_tensor_dict",
        CPU_LIMIT,
        lambda group, peer: _tensor_dicts(group, peer, to_peer=True),
        _sent(_dict_entry),
        buffered=True,
    ),
    BlockingCall(
        "recv_tensor_dict",
        "recv_tensor_dict",
        CPU_LIMIT,
        lambda group, peer: _tensor_dicts(group, peer, to_peer=False),
        _received(_dict_entry),
    ),
    BlockingCall(
        "isend_tensor_dict",
        "isend_tensor_dict",
        CPU_LIMIT,
        lambda group, peer: _started_tensor_dicts(group, peer, to_peer=True),
        _sent(_dict_entry),
        buffered=True,
    ),
    BlockingCall(
        "irecv_tensor_dict",
        "irecv_tensor_dict",
        CPU_LIMIT,
        lambda group, peer: _started_tensor_dicts(group, peer, to_peer=False),
        _received(_dict_entry),
    ),
)


def calls_under(limit: str) -> tuple[BlockingCall, ...]:
    """Return the calls that `limit` ends, "timeout" or "cpu_timeout"."""
    return tuple(call for call in CALLS if call.limit == limit)


def supported_calls(capabilities: Capabilities, limit: str | None = None) -> tuple[BlockingCall, ...]:
    """Return the calls that an implementation has: those that `limit` ends, or all."""
    calls = CALLS if limit is None else calls_under(limit)
    return tuple(call for call in calls if capabilities.supports(call.operation))


def call_named(name: str) -> BlockingCall:
    return next(call for call in CALLS if call.name == name)
