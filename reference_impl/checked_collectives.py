"""The collectives of a communicator, with arguments that are checked on every rank before any traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .arguments import Arguments
from .communicators.protocol import Communicator
from .failures import GroupScope, naming
from .ordered_group import OrderedGroup


@dataclass(frozen=True)
class CheckedCollectives:
    """What the methods of a coordinator do that have the same names; it says what they return and raise.

    `cpu`, whose `scope` errors name, is for what the ranks tell each other of their arguments.
    """

    communicator: Communicator
    arguments: Arguments
    cpu: OrderedGroup
    scope: GroupScope

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        self.arguments.tensor(input_, "all_reduce")
        return self.communicator.all_reduce(input_)

    def all_gather(self, input_: torch.Tensor, dim: int) -> torch.Tensor:
        self._tensor_with(input_, dim, "all_gather")
        return self.communicator.all_gather(input_, dim)

    def all_gatherv(
        self, input_: torch.Tensor | list[torch.Tensor], dim: int, sizes: Sequence[int] | None
    ) -> torch.Tensor | list[torch.Tensor]:
        tensors = input_ if isinstance(input_, list) else [input_]
        for tensor in tensors:
            self._tensor_with(tensor, dim, "all_gatherv")
        if sizes is not None:
            sizes = self.arguments.sizes(sizes, "all_gatherv")
            for tensor in tensors:
                self.arguments.own_size(tensor, dim, sizes, "all_gatherv")
            return self.communicator.all_gatherv(input_, dim, sizes)
        with naming("all_gatherv", self.scope):
            layouts = self.cpu.all_gather_object([(tuple(tensor.shape), tensor.dtype) for tensor in tensors])
        all_sizes = self.arguments.gathered_sizes(layouts, dim)
        gathered: list[Any] = [
            self.communicator.all_gatherv(tensor, dim, own)
            for tensor, own in zip(tensors, all_sizes, strict=True)
        ]
        return gathered if isinstance(input_, list) else gathered[0]

    def reduce_scatter(self, input_: torch.Tensor, dim: int) -> torch.Tensor:
        self._tensor_with(input_, dim, "reduce_scatter")
        self.arguments.divisible(input_, dim, "reduce_scatter")
        return self.communicator.reduce_scatter(input_, dim)

    def reduce_scatterv(self, input_: torch.Tensor, dim: int, sizes: Sequence[int] | None) -> torch.Tensor:
        checked = self._scatter_sizes(input_, dim, sizes, "reduce_scatterv")
        return self.communicator.reduce_scatterv(input_, dim, checked)

    def reduce_scatterv_into_output(
        self, input_: torch.Tensor, output: torch.Tensor, dim: int, sizes: Sequence[int] | None
    ) -> None:
        operation = "reduce_scatterv_into_output"
        checked = self._scatter_sizes(input_, dim, sizes, operation)
        self.arguments.tensor(output, operation)
        self.arguments.scatter_output(input_, output, dim, checked)
        self.communicator.reduce_scatterv_into_output(input_, output, dim, checked)

    def gather(self, input_: torch.Tensor, dst: int, dim: int) -> torch.Tensor | None:
        self.arguments.rank(dst, "dst")
        self._tensor_with(input_, dim, "gather")
        return self.communicator.gather(input_, dst, dim)

    def _tensor_with(self, tensor: torch.Tensor, dim: int, operation: str) -> None:
        self.arguments.tensor(tensor, operation)
        self.arguments.dim(tensor, dim, operation)

    def _scatter_sizes(
        self, input_: torch.Tensor, dim: int, sizes: Sequence[int] | None, operation: str
    ) -> list[int] | None:
        self._tensor_with(input_, dim, operation)
        if sizes is None:
            self.arguments.divisible(input_, dim, operation)
            return None
        checked = self.arguments.sizes(sizes, operation)
        self.arguments.total_size(input_, dim, checked, operation)
        return checked
