"""The collectives of a group of one rank: no traffic, the same results and the same refusals."""

# ruff: noqa: ARG002 - one rank needs neither dimension nor sizes nor peer

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..wire import fresh, require_reducible, write_back  # noqa: TID252


class SingleRankCommunicator:
    """What every communicator does at world size 1: the result is a fresh copy of the input."""

    def __init__(self, reduction_dtypes: frozenset[torch.dtype]) -> None:
        self._reduction_dtypes = reduction_dtypes

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        require_reducible(input_.dtype, self._reduction_dtypes, "all_reduce")
        return fresh(input_)

    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        return fresh(input_)

    def all_gatherv(
        self,
        input_: torch.Tensor | list[torch.Tensor],
        dim: int = 0,
        sizes: Sequence[int] | None = None,
    ) -> torch.Tensor | list[torch.Tensor]:
        return [fresh(tensor) for tensor in input_] if isinstance(input_, list) else fresh(input_)

    def reduce_scatter(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        require_reducible(input_.dtype, self._reduction_dtypes, "reduce_scatter")
        return fresh(input_)

    def reduce_scatterv(
        self,
        input_: torch.Tensor,
        dim: int = -1,
        sizes: Sequence[int] | None = None,
    ) -> torch.Tensor:
        require_reducible(input_.dtype, self._reduction_dtypes, "reduce_scatterv")
        return fresh(input_)

    def reduce_scatterv_into_output(
        self, input_: torch.Tensor, output: torch.Tensor, dim: int = -1, sizes: Sequence[int] | None = None
    ) -> None:
        write_back(output, self.reduce_scatterv(input_, dim, sizes))

    def gather(self, input_: torch.Tensor, dst: int = 0, dim: int = -1) -> torch.Tensor | None:
        return fresh(input_)

    def broadcast(self, tensor: torch.Tensor, src: int = 0) -> torch.Tensor:
        return tensor

    def send(self, tensor: torch.Tensor, dst: int) -> None:
        raise ValueError("a group of one rank has nobody to send to")

    def recv(self, size: Sequence[int], dtype: torch.dtype, src: int) -> torch.Tensor:
        raise ValueError("a group of one rank has nobody to receive from")

    def destroy(self) -> None:
        """Hold nothing, so release nothing."""
