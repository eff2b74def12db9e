"""Python objects over the CPU group: a header with the size, then the pickled bytes."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import torch

from .ordered_group import Members, OrderedGroup


@dataclass(frozen=True)
class Refusal:
    """Sent in place of a message that cannot be sent, so that the receiver raises too instead of waiting."""

    sender: int
    error: type[Exception]
    text: str


def dump(obj: Any) -> torch.Tensor:
    """Pickle an object to a 1-D uint8 tensor. Raises TypeError for one that cannot be pickled."""
    try:
        data = pickle.dumps(obj, protocol=pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"cannot send an object of type {type(obj).__name__}: it does not pickle ({error})"
        ) from error
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def load(data: torch.Tensor) -> Any:
    """Undo `dump`. Raises the error that the sender met, if it sent a `Refusal`."""
    obj = pickle.loads(data.numpy().tobytes())  # noqa: S301 - the bytes come from a rank of the same program
    if isinstance(obj, Refusal):
        raise obj.error(f"rank {obj.sender} of the group could not send its message: {obj.text}")
    return obj


def header(data: torch.Tensor) -> torch.Tensor:
    """Make the message that goes before `data`, on the CPU whatever torch's default device is."""
    return torch.tensor([data.numel()], dtype=torch.int64, device="cpu")


def broadcast_object(group: Members, obj: Any, src: int) -> Any:
    """Return the object of `src`, on `src` the very one passed.

    Raises TypeError, on all ranks, if it does not pickle.
    """
    if group.rank_in_group != src:
        return load(group.broadcast_bytes(None, src))
    try:
        data = dump(obj)
    except TypeError as error:
        broadcast_dumped(group, dump(Refusal(src, TypeError, str(error))), src)
        raise
    broadcast_dumped(group, data, src)
    return obj


def send_object(group: OrderedGroup, obj: Any, dst: int) -> None:
    """Send an object of any size; returns when both messages are gone."""
    data = dump(obj)
    group.send(header(data), dst)
    group.send(data, dst)


def recv_object(group: OrderedGroup, src: int) -> Any:
    """Wait for an object from `src`."""
    size = torch.empty(1, dtype=torch.int64, device="cpu")
    group.recv_(size, src)
    data = torch.empty(int(size), dtype=torch.uint8, device="cpu")
    group.recv_(data, src)
    return load(data)


def broadcast_dumped(group: Members, data: torch.Tensor, src: int) -> None:
    """Send what `dump` made of an object to all others, which call `broadcast_object`."""
    group.broadcast_bytes(data, src)
