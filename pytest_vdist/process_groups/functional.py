"""The functional collectives of torch with the methods of a coordinator, for the judge's cases."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from . import _compat


class FunctionalGroup:
    """One rank's view of a process group, whose operations are functional collectives, waited for."""

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        self.group = group
        self.device = device
        self.rank = dist.get_rank()
        self.rank_in_group = dist.get_rank(group)
        self.world_size = dist.get_world_size(group)

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        return _waited(_compat.functional("all_reduce")(input_, "sum", self.group))

    def all_gather(self, input_: torch.Tensor, dim: int) -> torch.Tensor:
        return _waited(_compat.functional("all_gather_single", "all_gather_tensor")(input_, dim, self.group))

    def reduce_scatter(self, input_: torch.Tensor, dim: int) -> torch.Tensor:
        scatter = _compat.functional("reduce_scatter_single", "reduce_scatter_tensor")
        return _waited(scatter(input_, "sum", dim, self.group))

    def broadcast(self, input_: torch.Tensor, src: int) -> torch.Tensor:
        """Return the tensor of rank `src` of the group."""
        return _waited(_compat.functional("broadcast")(input_, src, self.group))

    def all_to_all_single(
        self, input_: torch.Tensor, received: list[int] | None, sent: list[int] | None
    ) -> torch.Tensor:
        """Return the parts for this rank, as many rows of each rank as `received` says, or equal ones."""
        exchange = _compat.functional("all_to_all_single")
        return _waited(exchange(input_, received, sent, self.group))


def _waited(result: Any) -> torch.Tensor:
    """Return a plain tensor: eager calls give one that waits when it is used."""
    waited: torch.Tensor = result.wait() if hasattr(result, "wait") else result
    return waited
