"""A process group whose results follow the order in which the caller gave its ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist

from . import _compat
from .connections import start_message
from .failures import GroupScope, naming
from .wire import as_wire, from_wire, is_plain, write_back


class Members(Protocol):
    """Collectives and messages on flat tensors, whatever carries them; `OrderedGroup` says what each does."""

    world_size: int
    rank_in_group: int

    def all_reduce_(self, tensor: torch.Tensor) -> None: ...
    def all_gather(self, flat: torch.Tensor) -> torch.Tensor: ...
    def reduce_scatter(self, flat: torch.Tensor) -> torch.Tensor: ...
    def gather(self, flat: torch.Tensor, dst: int) -> torch.Tensor | None: ...
    def broadcast_(self, tensor: torch.Tensor, src: int) -> None: ...
    def broadcast_bytes(self, data: torch.Tensor | None, src: int) -> torch.Tensor: ...
    def send(self, flat: torch.Tensor, dst: int) -> None: ...
    def recv_(self, flat: torch.Tensor, src: int) -> None: ...
    def barrier(self) -> None: ...


@dataclass(frozen=True)
class Message:
    """A message in flight. `timeout` ends the wait for it; None leaves that to the backend."""

    work: dist.Work
    timeout: timedelta | None
    operation: str = "message"
    scope: GroupScope | None = None

    def wait(self) -> None:
        """Wait until the message is through. Raises RuntimeError where it fails or the time is over."""
        with naming(self.operation, self.scope):
            self.work.wait() if self.timeout is None else self.work.wait(self.timeout)

    def is_completed(self) -> bool:
        """Tell, without waiting, whether the message is known to be through."""
        return bool(self.work.is_completed())


class OrderedGroup:
    """Collectives and messages on flat tensors, among `ranks` (global ranks) in the order given.

    torch sorts the ranks of a group, so rows are permuted here where the order given differs. All `src` and
    `dst` are positions in `ranks`. Nothing is sent for empty tensors: backends differ on them.
    """

    def __init__(
        self,
        group: dist.ProcessGroup,
        ranks: Sequence[int],
        message_timeout: timedelta | None = None,
        scope: GroupScope | None = None,
    ) -> None:
        """Take a group of torch. `message_timeout` is for backends that do not know the group's timeout.

        With a `scope`, messages that fail raise CommunicationError, which names it.
        """
        self.group = group
        self.message_timeout = message_timeout
        self.scope = scope
        self.ranks = list(ranks)
        self.world_size = len(self.ranks)
        self.rank_in_group = self.ranks.index(dist.get_rank())
        torch_ranks = dist.get_process_group_ranks(group)
        self._is_sorted = self.ranks == torch_ranks
        self._torch_row = [torch_ranks.index(rank) for rank in self.ranks]
        self._given_row = [self.ranks.index(rank) for rank in torch_ranks]

    def all_reduce_(self, tensor: torch.Tensor) -> None:
        """Sum a contiguous `tensor` over the group, in place."""
        if tensor.numel():
            _compat.all_reduce(tensor, self.group)

    def all_gather(self, flat: torch.Tensor) -> torch.Tensor:
        """Return every rank's 1-D `flat`, one after the other."""
        joined = flat.new_empty(self.world_size * flat.numel())
        if not flat.numel():
            return joined
        _compat.all_gather_flat(joined, flat, self.group)
        return self._reorder(joined, self._torch_row)

    def reduce_scatter(self, flat: torch.Tensor) -> torch.Tensor:
        """Sum every rank's contiguous 1-D `flat` and return this rank's of world_size equal parts."""
        part = flat.new_empty(flat.numel() // self.world_size)
        if part.numel():
            _compat.reduce_scatter_flat(part, self._reorder(flat, self._given_row), self.group)
        return part

    def gather(self, flat: torch.Tensor, dst: int) -> torch.Tensor | None:
        """Return every rank's 1-D `flat`, one after the other, at `dst`, and None elsewhere."""
        joined, parts = None, None
        if self.rank_in_group == dst:
            joined = flat.new_empty(self.world_size * flat.numel())
            rows = joined.view(self.world_size, flat.numel())
            parts = [rows[row] for row in self._given_row]
        if flat.numel():
            dist.gather(flat, parts, dst=self.ranks[dst], group=self.group)
        return joined

    def broadcast_(self, tensor: torch.Tensor, src: int) -> None:
        """Overwrite `tensor`, of any strides, with that of `src`."""
        if not tensor.numel():
            return
        flat = as_wire(tensor)
        _compat.broadcast(flat, self._torch_row[src], self.group)
        if self.rank_in_group != src and not is_plain(tensor):
            write_back(tensor, from_wire(flat, tensor.dtype, tensor.shape))

    def broadcast_bytes(self, data: torch.Tensor | None, src: int) -> torch.Tensor:
        """Return the 1-D uint8 tensor of `src`, whose size only that rank knows; `data` is None elsewhere."""
        # On the CPU whatever torch's default device is.
        size = torch.tensor([0 if data is None else data.numel()], dtype=torch.int64, device="cpu")
        self.broadcast_(size, src)
        if data is None:
            data = torch.empty(int(size), dtype=torch.uint8, device="cpu")
        self.broadcast_(data, src)
        return data

    def barrier(self) -> None:
        """Wait until every rank has come here."""
        dist.barrier(group=self.group)

    def all_gather_object(self, obj: Any) -> list[Any]:
        """Return every rank's picklable `obj`."""
        objects: list[Any] = [None] * self.world_size
        dist.all_gather_object(objects, obj, group=self.group)
        return [objects[row] for row in self._torch_row]

    def send(self, flat: torch.Tensor, dst: int) -> None:
        """Send a 1-D tensor; returns when the backend lets go of it."""
        if flat.numel():
            self.isend(flat, dst).wait()

    def recv_(self, flat: torch.Tensor, src: int) -> None:
        """Fill a 1-D contiguous tensor with a message of its size."""
        if flat.numel():
            self.irecv(flat, src).wait()

    def isend(self, flat: torch.Tensor, dst: int) -> Message:
        """Start to send a 1-D tensor that is not empty and stays as it is until the work is done."""
        work = start_message(dist.isend, flat, self.ranks[dst], self.group)
        return self._message(work, f"send to rank {dst}")

    def irecv(self, flat: torch.Tensor, src: int) -> Message:
        """Start to fill a 1-D contiguous tensor that is not empty."""
        work = start_message(dist.irecv, flat, self.ranks[src], self.group)
        return self._message(work, f"receive from rank {src}")

    def _message(self, work: dist.Work | None, operation: str) -> Message:
        assert work is not None, "this rank is a member of the group"
        return Message(work, self.message_timeout, operation, self.scope)

    def _reorder(self, flat: torch.Tensor, order: list[int]) -> torch.Tensor:
        if self._is_sorted:
            return flat
        # Without an index tensor: a CUDA graph cannot hold its copy to the device.
        parts = flat.view(self.world_size, -1)
        return torch.cat([parts[row] for row in order])
