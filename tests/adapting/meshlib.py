"""A small coordinator as a third party might have it: own names, own orders of arguments, and gaps.

It is what docs/adapting.md adapts; it knows nothing of pytest-vdist.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["Mesh", "start", "stop"]


def start(me: int, everyone: int, *, meet: str, limit: float | None = None) -> None:
    """Join the world; the processes meet at a URL. `limit` is in seconds."""
    timeout = None if limit is None else timedelta(seconds=limit)
    dist.init_process_group("gloo", init_method=meet, rank=me, world_size=everyone, timeout=timeout)


def stop() -> None:
    """Leave the world."""
    if dist.is_initialized():
        dist.destroy_process_group()


class Mesh:
    """Some of the processes, in a line. Peers and roots are places in the line, and come first."""

    def __init__(self, lines: list[list[int]]) -> None:
        """Make the meshes of all lines, and take part in that of this process."""
        made = [dist.new_group(sorted(line)) for line in lines]
        self.line, self._group = next(
            (line, group) for line, group in zip(lines, made, strict=True) if dist.get_rank() in line
        )
        self.place = self.line.index(dist.get_rank())
        self.open = True

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of all processes' values."""
        self._check(values)
        if values.dtype is torch.bool:
            raise TypeError("mesh: booleans have no total")
        result = values.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(result, group=self._group)
        return result

    def joined(self, axis: int, values: torch.Tensor) -> torch.Tensor:
        """Return all processes' values, which have one shape, one after the other along an axis."""
        self._check(values)
        own = values.detach().contiguous()
        parts = [torch.empty_like(own) for _ in self.line]
        dist.all_gather(parts, own, group=self._group)
        by_rank = dict(zip(sorted(self.line), parts, strict=True))
        return torch.cat([by_rank[rank] for rank in self.line], axis)

    def share_of_total(self, axis: int, values: torch.Tensor) -> torch.Tensor:
        """Return this process' share of the sum; the shares are equal and follow the line."""
        self._check(values)
        if values.shape[axis] % len(self.line):
            raise ValueError(f"mesh: {values.shape[axis]} values are no equal shares of {len(self.line)}")
        return self.total(values).chunk(len(self.line), axis)[self.place].clone()

    def spread(self, root: int, values: torch.Tensor) -> None:
        """Overwrite the values with those of the root."""
        self._check(values)
        moved = values.detach().contiguous()
        dist.broadcast(moved, self.line[root], group=self._group)
        if self.place != root:
            values.detach().copy_(moved)

    def tell(self, root: int, thing: Any) -> Any:
        """Return the root's thing, which must pickle."""
        things = [thing]
        dist.broadcast_object_list(things, self.line[root], group=self._group)
        return things[0]

    def post(self, peer: int, thing: Any) -> None:
        """Send a thing that pickles."""
        dist.send_object_list([thing], self.line[peer], group=self._group)

    def fetch(self, peer: int) -> Any:
        """Receive a thing."""
        things = [None]
        dist.recv_object_list(things, self.line[peer], group=self._group)
        return things[0]

    def put(self, peer: int, values: torch.Tensor) -> None:
        """Send values."""
        self._check(values)
        dist.send(values.detach().contiguous(), self.line[peer], group=self._group)

    def take(self, peer: int, into: torch.Tensor) -> torch.Tensor:
        """Receive values."""
        dist.recv(into, self.line[peer], group=self._group)
        return into

    def meet(self) -> None:
        """Wait for all processes."""
        self._check(None)
        dist.barrier(self._group)

    def close(self) -> None:
        """Leave the mesh."""
        if self.open:
            self.open = False
            dist.destroy_process_group(self._group)

    def _check(self, values: Any) -> None:
        if not self.open:
            raise RuntimeError("mesh: it is closed")
        if values is not None and not isinstance(values, torch.Tensor):
            raise TypeError(f"mesh: values must be a tensor, got {type(values).__name__}")
