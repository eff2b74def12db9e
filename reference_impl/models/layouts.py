"""How the ranks share a model, and the groups in which they talk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..model_parallel import group_layout  # noqa: TID252
from .config import ModelConfig


class ParallelGroup(Protocol):
    """What the models ask of a coordinator."""

    device: torch.device
    world_size: int
    rank_in_group: int

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor: ...
    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor: ...
    def all_gatherv(self, input_: Any, dim: int = 0, sizes: Sequence[int] | None = None) -> Any: ...
    def reduce_scatterv(
        self, input_: torch.Tensor, dim: int = -1, sizes: Sequence[int] | None = None
    ) -> torch.Tensor: ...
    def broadcast_object(self, obj: Any = None, src: int = 0) -> Any: ...
    def broadcast_tensor_dict(self, tensor_dict: Any = None, src: int = 0) -> Any: ...
    def send_tensor_dict(
        self, tensor_dict: Any, dst: int | None = None, all_gather_group: Any = None
    ) -> Any: ...
    def recv_tensor_dict(self, src: int | None = None, all_gather_group: Any = None) -> Any: ...


@dataclass(frozen=True)
class Layout:
    """Sizes of the tensor, pipeline and data groups.

    Experts are split over tensor and data ranks if `expert_parallel`, and each over tensor ranks otherwise.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert_parallel: bool = False

    @property
    def ranks(self) -> int:
        return self.tensor * self.pipeline * self.data

    def require(self, config: ModelConfig) -> None:
        """Raise ValueError unless the model can be shared so."""
        if config.heads % self.tensor:
            raise ValueError(f"{config.heads} heads do not divide by tensor={self.tensor}: give a divisor")
        if self.pipeline > config.layers:
            raise ValueError(
                f"pipeline={self.pipeline} stages are more than the {config.layers} layers: give fewer"
            )
        if self.expert_parallel and (not config.experts or config.experts % (self.tensor * self.data)):
            raise ValueError(
                f"{config.experts} experts do not divide by tensor x data = {self.tensor * self.data} ranks: "
                "give other sizes, or share each expert among tensor ranks (--expert 1)"
            )

    def __str__(self) -> str:
        sizes = {"tensor": self.tensor, "pipeline": self.pipeline, "data": self.data}
        sizes["expert"] = self.tensor * self.data if self.expert_parallel else 1
        return " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1) or "one rank"


def layouts_for(config: ModelConfig, world_size: int) -> list[Layout]:
    """Return every layout of the model over that many ranks."""
    found = [
        Layout(tensor, pipeline, world_size // (tensor * pipeline))
        for tensor in _divisors(world_size)
        for pipeline in _divisors(world_size // tensor)
        if config.heads % tensor == 0 and pipeline <= config.layers
    ]
    shared = [
        Layout(each.tensor, each.pipeline, each.data, expert_parallel=True)
        for each in found
        if each.tensor * each.data > 1 and config.experts and config.experts % (each.tensor * each.data) == 0
    ]
    return found + shared


@dataclass(frozen=True)
class ParallelGroups:
    """This rank's group of each kind."""

    world: ParallelGroup
    tensor: ParallelGroup
    pipeline: ParallelGroup
    data: ParallelGroup
    expert: ParallelGroup


def groups_of(
    make: Callable[[list[list[int]]], ParallelGroup], layout: Layout, world_size: int
) -> ParallelGroups:
    """Make the groups of a layout by `make(group_ranks)`, which every rank calls in the same order."""
    ranks = group_layout(world_size, layout.tensor, layout.pipeline, layout.data)
    kinds = ("tp", "pp", "dp", "ep")
    return ParallelGroups(make([list(range(world_size))]), *(make(ranks[kind]) for kind in kinds))


def parts(total: int, count: int) -> list[int]:
    """Split `total` into `count` sizes that differ by one at most, the larger ones first."""
    return [total // count + (index < total % count) for index in range(count)]


def part(total: int, count: int, index: int) -> range:
    """Return what belongs to part `index` of `parts`."""
    sizes = parts(total, count)
    start = sum(sizes[:index])
    return range(start, start + sizes[index])


def _divisors(number: int) -> Iterator[int]:
    return (divisor for divisor in range(1, number + 1) if number % divisor == 0)
