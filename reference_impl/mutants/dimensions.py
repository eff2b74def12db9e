"""Parts at wrong places: along other dimensions, or in another order than the ranks'."""

from __future__ import annotations

import torch

from ..coordinator import GroupCoordinator  # noqa: TID252
from ..wire import fresh  # noqa: TID252
from .registry import Original, Patch, mutant
from .tools import flip_bit, rotated

Tensor = torch.Tensor
DEFECT = "dimensions"
WRONG_WAY = "https://github.com/vllm-project/vllm/issues/30546"


@mutant("values", "VD-AG-001")
def all_gather_begins_with_the_second_rank(patch: Patch) -> None:
    """The parts are in the order of the ranks, but the first comes last."""

    @patch.around(GroupCoordinator, "all_gather")
    def all_gather(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1) -> Tensor:
        return rotated(original(self, input_, dim), -input_.shape[dim], dim)


@mutant("values", "VD-AG-008", "VD-AG-001")
def all_gather_differs_on_one_rank(patch: Patch) -> None:
    """One bit of the first element is wrong on the last rank."""

    @patch.around(GroupCoordinator, "all_gather")
    def all_gather(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1) -> Tensor:
        result: Tensor = original(self, input_, dim)
        last = self.world_size > 1 and self.rank_in_group == self.world_size - 1
        return flip_bit(result) if last else result


@mutant(DEFECT, "VD-AG-002", issue="https://github.com/pytorch/pytorch/issues/138795")
def all_gather_interleaves(patch: Patch) -> None:
    """Along a later dimension than the first, elements of the ranks alternate, as if stacked behind it."""

    @patch.around(GroupCoordinator, "all_gather")
    def all_gather(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1) -> Tensor:
        result: Tensor = original(self, input_, dim)
        if dim % input_.dim() == 0 or not input_.numel():
            return result
        parts = torch.split(result, input_.shape[dim], dim)
        return (
            fresh(torch.stack([part.view(torch.uint8) for part in parts], dim % input_.dim() + 1))
            .view(result.dtype)
            .view(result.shape)
        )


@mutant(DEFECT, "VD-AG-002")
def all_gather_counts_negative_dimensions_from_one_too_far(patch: Patch) -> None:
    """dim=-2 of three and more dimensions is taken for -3."""

    @patch.around(GroupCoordinator, "all_gather")
    def all_gather(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1) -> Tensor:
        return original(self, input_, dim - 1 if -input_.dim() < dim < -1 else dim)


@mutant(DEFECT, "VD-RS-002", issue=WRONG_WAY)
def reduce_scatter_moves_dimensions_the_wrong_way(patch: Patch) -> None:
    """The dimension to scatter is brought to the front by movedim(0, dim) instead of movedim(dim, 0)."""

    @patch.around(GroupCoordinator, "reduce_scatter")
    def reduce_scatter(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1) -> Tensor:
        moved = input_.movedim(0, dim)
        if moved.shape[0] % self.world_size or input_.shape[dim] % self.world_size:
            return original(self, input_, dim)
        return fresh(original(self, moved, 0).movedim(0, dim))


@mutant("values", "VD-RS-001", "VD-PRG-003")
def reduce_scatter_gives_the_next_part(patch: Patch) -> None:
    """Each rank gets the part of the rank after it."""

    @patch.around(GroupCoordinator, "reduce_scatter")
    def reduce_scatter(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1) -> Tensor:
        return original(self, rotated(input_, -(input_.shape[dim] // self.world_size), dim), dim)


@mutant("values", "VD-RS-003")
def reduce_scatter_leaves_its_own_part_out_of_its_sum(patch: Patch) -> None:
    """The first element of each part lacks the input of the rank that gets it."""

    @patch.around(GroupCoordinator, "reduce_scatter")
    def reduce_scatter(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1) -> Tensor:
        result: Tensor = original(self, input_, dim)
        if self.world_size > 1 and result.numel():
            size = input_.shape[dim] // self.world_size
            own = input_.narrow(dim, self.rank_in_group * size, size)
            result.view(-1)[:1] -= own.reshape(-1)[:1]
        return result


@mutant(DEFECT, "VD-RS-002")
def reduce_scatter_defaults_to_the_first_dimension(patch: Patch) -> None:
    """Without `dim` the first dimension is scattered."""

    @patch.around(GroupCoordinator, "reduce_scatter")
    def reduce_scatter(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = 0) -> Tensor:
        return original(self, input_, dim)


@mutant("values", "VD-RS-005", "VD-RS-001")
def reduce_scatter_sums_integers_as_floats(patch: Patch) -> None:
    """int64 goes through float32."""

    @patch.around(GroupCoordinator, "reduce_scatter")
    def reduce_scatter(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1) -> Tensor:
        if input_.dtype != torch.int64:
            return original(self, input_, dim)
        return original(self, input_.to(torch.float32), dim).to(torch.int64)


@mutant("values", "VD-RS-004")
def reduce_scatter_rounds_too_coarsely(patch: Patch) -> None:
    """Sums of float32 that must round lose three more bits."""

    @patch.around(GroupCoordinator, "reduce_scatter")
    def reduce_scatter(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1) -> Tensor:
        result: Tensor = original(self, input_, dim)
        if result.dtype != torch.float32:
            return result
        rounds = original(self, input_.to(torch.float64), dim) != result
        return torch.where(rounds, (result.view(torch.int32) & ~7).view(torch.float32), result)


@mutant("values", "VD-GA-001")
def gather_puts_the_destination_first(patch: Patch) -> None:
    """The parts begin with that of the destination."""

    @patch.around(GroupCoordinator, "gather")
    def gather(
        original: Original, self: GroupCoordinator, input_: Tensor, dst: int = 0, dim: int = -1
    ) -> Tensor | None:
        result: Tensor | None = original(self, input_, dst, dim)
        return None if result is None else rotated(result, -dst * input_.shape[dim], dim)


@mutant("values", "VD-GA-002")
def gather_gives_everyone_the_result(patch: Patch) -> None:
    """gather is all_gather."""

    @patch.around(GroupCoordinator, "gather")
    def gather(
        original: Original, self: GroupCoordinator, input_: Tensor, dst: int = 0, dim: int = -1
    ) -> Tensor | None:
        original(self, input_, dst, dim)
        return self.all_gather(input_, dim)


@mutant("rank mapping", "VD-GA-003")
def gather_always_goes_to_the_first_rank(patch: Patch) -> None:
    """`dst` is not looked at."""

    @patch.around(GroupCoordinator, "gather")
    def gather(
        original: Original, self: GroupCoordinator, input_: Tensor, dst: int = 0, dim: int = -1
    ) -> Tensor | None:
        return original(self, input_, dst * 0, dim)


@mutant(DEFECT, "VD-GA-004")
def gather_flips_along_negative_dimensions(patch: Patch) -> None:
    """Along a negative dimension other than the last, the first dimension comes out backwards."""

    @patch.around(GroupCoordinator, "gather")
    def gather(
        original: Original, self: GroupCoordinator, input_: Tensor, dst: int = 0, dim: int = -1
    ) -> Tensor | None:
        result: Tensor | None = original(self, input_, dst, dim)
        return result.flip(0) if result is not None and dim < -1 and result.numel() else result


@mutant("rank mapping", "VD-GA-003", world_size=4, issue="https://github.com/vllm-project/vllm/issues/2528")
def gather_takes_the_destination_for_a_global_rank(patch: Patch) -> None:
    """In a subgroup that has such a global rank, that one is the destination."""

    @patch.around(GroupCoordinator, "gather")
    def gather(
        original: Original, self: GroupCoordinator, input_: Tensor, dst: int = 0, dim: int = -1
    ) -> Tensor | None:
        return original(self, input_, self.ranks.index(dst) if dst in self.ranks else dst, dim)
