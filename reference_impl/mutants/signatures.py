"""Signatures that have drifted: other names of arguments, another order, another default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..coordinator import GroupCoordinator  # noqa: TID252
from .registry import Original, Patch, mutant

DEFECT = "signature drift"
Tensor = torch.Tensor


@mutant(DEFECT, "VD-AG-001", issue="https://github.com/vllm-project/vllm-omni/issues/6204")
def all_gather_calls_its_dimension_axis(patch: Patch) -> None:
    """The argument `dim` of all_gather has another name."""

    @patch.around(GroupCoordinator, "all_gather")
    def all_gather(original: Original, self: GroupCoordinator, input_: Tensor, axis: int = -1) -> Tensor:
        return original(self, input_, axis)


@mutant(DEFECT, "VD-GA-003")
def gather_takes_its_dimension_first(patch: Patch) -> None:
    """The arguments `dst` and `dim` have changed places, and `dst` has no name."""

    @patch.around(GroupCoordinator, "gather")
    def gather(
        original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1, dst_rank: int = 0
    ) -> Tensor | None:
        return original(self, input_, dst_rank, dim)


@mutant(DEFECT, "VD-P2P-001")
def recv_takes_the_dtype_first(patch: Patch) -> None:
    """The arguments `size` and `dtype` have changed places."""

    @patch.around(GroupCoordinator, "recv")
    def recv(
        original: Original, self: GroupCoordinator, dtype: Any, size: Any, src: int | None = None
    ) -> Tensor:
        return original(self, size, dtype, src)


@mutant(DEFECT, "VD-RSV-001")
def reduce_scatterv_calls_its_sizes_splits(patch: Patch) -> None:
    """The argument `sizes` has another name."""

    @patch.around(GroupCoordinator, "reduce_scatterv")
    def reduce_scatterv(
        original: Original,
        self: GroupCoordinator,
        input_: Tensor,
        dim: int = -1,
        splits: Sequence[int] | None = None,
    ) -> Tensor:
        return original(self, input_, dim, splits)


@mutant(DEFECT, "VD-AGV-004", issue="https://github.com/vllm-project/vllm/issues/57837")
def all_gatherv_takes_no_lists(patch: Patch) -> None:
    """A list of tensors is no argument."""

    @patch.around(GroupCoordinator, "all_gatherv")
    def all_gatherv(
        original: Original, self: GroupCoordinator, input_: Any, dim: int = 0, sizes: Any = None
    ) -> Any:
        if isinstance(input_, list):
            raise NotImplementedError("all_gatherv of lists")
        return original(self, input_, dim, sizes)
