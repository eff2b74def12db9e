"""Parts of unequal sizes: joined, scattered, padded or shaped wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..coordinator import GroupCoordinator  # noqa: TID252
from ..wire import fresh  # noqa: TID252
from .registry import Original, Patch, mutant
from .tools import rotated

Tensor = torch.Tensor
DEFECT = "dimensions"
RAGGED = "ragged parts"


@mutant(RAGGED, "VD-AGV-001")
def all_gatherv_joins_parts_backwards(patch: Patch) -> None:
    """Parts of unequal sizes come in descending order of the ranks."""

    @patch.around(GroupCoordinator, "all_gatherv")
    def all_gatherv(
        original: Original, self: GroupCoordinator, input_: Any, dim: int = 0, sizes: Any = None
    ) -> Any:
        result = original(self, input_, dim, sizes)
        if sizes is None or len(set(sizes)) == 1 or isinstance(result, list):
            return result
        parts = (
            result.view(torch.uint8).split([size * result.element_size() for size in sizes], dim)
            if (dim % result.dim() == result.dim() - 1)
            else result.view(torch.uint8).split(list(sizes), dim)
        )
        return fresh(torch.cat(parts[::-1], dim)).view(result.dtype)


@mutant(RAGGED, "VD-AGV-002")
def all_gatherv_gives_nothing_to_ranks_without_rows(patch: Patch) -> None:
    """A rank whose size is zero gets an empty result."""

    @patch.around(GroupCoordinator, "all_gatherv")
    def all_gatherv(
        original: Original, self: GroupCoordinator, input_: Any, dim: int = 0, sizes: Any = None
    ) -> Any:
        result = original(self, input_, dim, sizes)
        without_rows = sizes is not None and not sizes[self.rank_in_group]
        return result.narrow(dim, 0, 0) if without_rows and isinstance(result, Tensor) else result


@mutant(RAGGED, "VD-AGV-003")
def all_gatherv_gives_a_list_where_sizes_are_equal(patch: Patch) -> None:
    """With sizes given that are all the same, the result of one tensor is a list of one."""

    @patch.around(GroupCoordinator, "all_gatherv")
    def all_gatherv(
        original: Original, self: GroupCoordinator, input_: Any, dim: int = 0, sizes: Any = None
    ) -> Any:
        result = original(self, input_, dim, sizes)
        equal = sizes is not None and len(set(sizes)) == 1
        return [result] if equal and isinstance(result, Tensor) else result


@mutant(RAGGED, "VD-AGV-004")
def all_gatherv_reverses_lists(patch: Patch) -> None:
    """The results of a list of tensors come in reverse order."""

    @patch.around(GroupCoordinator, "all_gatherv")
    def all_gatherv(
        original: Original, self: GroupCoordinator, input_: Any, dim: int = 0, sizes: Any = None
    ) -> Any:
        result = original(self, input_, dim, sizes)
        return result[::-1] if isinstance(result, list) else result


@mutant(RAGGED, "VD-AGV-004")
def all_gatherv_unpacks_lists_of_one(patch: Patch) -> None:
    """A list of one tensor gives a tensor."""

    @patch.around(GroupCoordinator, "all_gatherv")
    def all_gatherv(
        original: Original, self: GroupCoordinator, input_: Any, dim: int = 0, sizes: Any = None
    ) -> Any:
        result = original(self, input_, dim, sizes)
        return result[0] if isinstance(result, list) and len(result) == 1 else result


@mutant(DEFECT, "VD-AGV-005")
def all_gatherv_keeps_the_joined_dimension_in_front(patch: Patch) -> None:
    """Along the third dimension and later ones, the result's dimensions are not put back in their order."""

    @patch.around(GroupCoordinator, "all_gatherv")
    def all_gatherv(
        original: Original, self: GroupCoordinator, input_: Any, dim: int = 0, sizes: Any = None
    ) -> Any:
        result = original(self, input_, dim, sizes)
        if isinstance(result, list) or dim % result.dim() < 2 or not result.numel():
            return result
        return fresh(result.movedim(dim, 0)).view(result.shape)


@mutant(RAGGED, "VD-RSV-001")
def reduce_scatterv_starts_one_row_late(patch: Patch) -> None:
    """Parts of unequal sizes begin one place behind where the sizes before them end."""

    @patch.around(GroupCoordinator, "reduce_scatterv")
    def reduce_scatterv(
        original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1, sizes: Any = None
    ) -> Tensor:
        unequal = sizes is not None and len(set(sizes)) > 1
        return original(self, rotated(input_, -1, dim) if unequal else input_, dim, sizes)


@mutant(RAGGED, "VD-RSV-002")
def reduce_scatterv_gives_none_for_no_rows(patch: Patch) -> None:
    """A rank whose size is zero gets None."""

    @patch.around(GroupCoordinator, "reduce_scatterv")
    def reduce_scatterv(
        original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1, sizes: Any = None
    ) -> Tensor | None:
        result: Tensor = original(self, input_, dim, sizes)
        return None if sizes is not None and not sizes[self.rank_in_group] else result


@mutant(RAGGED, "VD-RSV-003")
def reduce_scatterv_does_nothing_for_equal_sizes(patch: Patch) -> None:
    """With sizes that are all the same the result is never written."""

    @patch.around(GroupCoordinator, "reduce_scatterv")
    def reduce_scatterv(
        original: Original,
        self: GroupCoordinator,
        input_: Tensor,
        dim: int = -1,
        sizes: Sequence[int] | None = None,
    ) -> Tensor:
        result: Tensor = original(self, input_, dim, sizes)
        return torch.zeros_like(result) if sizes is not None and len(set(sizes)) == 1 else result


@mutant(DEFECT, "VD-RSV-004")
def reduce_scatterv_flips_the_last_dimension(patch: Patch) -> None:
    """Along a negative dimension of three and more, the first dimension comes out backwards."""

    @patch.around(GroupCoordinator, "reduce_scatterv")
    def reduce_scatterv(
        original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1, sizes: Any = None
    ) -> Tensor:
        result: Tensor = original(self, input_, dim, sizes)
        return result.flip(0) if dim < 0 and input_.dim() > 2 else result


@mutant(RAGGED, "VD-RSV-005")
def reduce_scatterv_pads_with_its_own_rows(patch: Patch) -> None:
    """The last row of a part of unequal size is this rank's own, not the sum."""

    @patch.around(GroupCoordinator, "reduce_scatterv")
    def reduce_scatterv(
        original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1, sizes: Any = None
    ) -> Tensor:
        result: Tensor = original(self, input_, dim, sizes)
        if sizes is not None and len(set(sizes)) > 1 and sizes[self.rank_in_group]:
            end = sum(sizes[: self.rank_in_group + 1])
            result.narrow(dim, result.shape[dim] - 1, 1).copy_(input_.narrow(dim, end - 1, 1))
        return result
