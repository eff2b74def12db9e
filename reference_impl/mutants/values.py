"""Sums with wrong values: dropped, doubled, stale, truncated, misplaced, or not the same on every rank."""

from __future__ import annotations

import torch

from ..coordinator import GroupCoordinator  # noqa: TID252
from ..wire import fresh  # noqa: TID252
from .registry import Original, Patch, mutant
from .tools import flip_bit, without_tail

DEFECT = "values"
Tensor = torch.Tensor


@mutant(DEFECT, "VD-AR-001")
def sum_drops_the_last_rank(patch: Patch) -> None:
    """The last rank's input does not count."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        counts = self.world_size == 1 or self.rank_in_group < self.world_size - 1
        return original(self, input_ if counts else torch.zeros_like(input_))


@mutant(DEFECT, "VD-AR-001", "VD-AR-007")
def sum_drops_a_rank_in_the_last_elements(patch: Patch) -> None:
    """The last three of many elements lack the input of rank 0."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        if self.world_size > 1 and self.rank_in_group == 0 and input_.numel() > 100:
            input_ = fresh(input_)
            input_.view(-1)[-3:] = 0
        return original(self, input_)


@mutant(DEFECT, "VD-AR-001")
def sum_counts_a_rank_twice(patch: Patch) -> None:
    """Rank 0's input counts twice."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        twice = self.world_size > 1 and self.rank_in_group == 0
        return original(self, input_ + input_ if twice else input_)


@mutant(DEFECT, "VD-AR-001", issue="https://github.com/vllm-project/vllm/issues/39844")
def sum_is_zero(patch: Patch) -> None:
    """The result is a buffer into which nothing was written."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        return torch.zeros_like(original(self, input_))


@mutant(DEFECT, "VD-AR-001")
def sum_keeps_one_element_of_the_last_call(patch: Patch) -> None:
    """The first element is that of the previous sum of the same dtype."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        earlier = vars(self).setdefault("_earlier_sums", {})
        stale = earlier.get(input_.dtype)
        earlier[input_.dtype] = result.reshape(-1)[:1].clone()
        if stale is not None and stale.numel() and result.numel():
            result.view(-1)[:1] = stale
        return result


@mutant(DEFECT, "VD-AR-001")
def sum_swaps_two_chunks(patch: Patch) -> None:
    """Ranks add up chunks at each other's places: the halves of a sum of an even number are exchanged."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        if self.world_size == 1 or result.numel() % 2 or not result.numel():
            return result
        return result.view(-1).roll(result.numel() // 2).view(result.shape)


@mutant(DEFECT, "VD-AR-009", "VD-AR-001")
def one_bit_of_one_element_of_one_rank_is_wrong(patch: Patch) -> None:
    """The lowest bit of one element, in the middle, is flipped on its way from the last rank."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        if self.world_size > 1 and self.rank_in_group == self.world_size - 1 and input_.numel() > 500:
            input_ = fresh(input_)
            flip_bit(input_, byte=500 * input_.element_size())
        return original(self, input_)


@mutant(DEFECT, "VD-AR-009", "VD-AR-001")
def float32_travels_as_bfloat16(patch: Patch) -> None:
    """Sums of float32 go through a narrower format."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        if input_.dtype != torch.float32:
            return original(self, input_)
        return original(self, input_.to(torch.bfloat16)).to(torch.float32)


@mutant(DEFECT, "VD-AR-009", "VD-AR-006")
def integers_are_summed_as_floats(patch: Patch) -> None:
    """Sums of int64 go through float32, which holds 24 bits."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        if input_.dtype != torch.int64:
            return original(self, input_)
        return original(self, input_.to(torch.float32)).to(torch.int64)


@mutant(DEFECT, "VD-AR-002", "VD-AR-009")
def sum_is_cut_off_not_rounded(patch: Patch) -> None:
    """The six lowest bits of a sum of float32 are zero."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        return (
            (result.view(torch.int32) & ~63).view(torch.float32) if result.dtype == torch.float32 else result
        )


@mutant(DEFECT, "VD-AR-002")
def sums_that_round_lose_three_more_bits(patch: Patch) -> None:
    """Sums of float32 are exact where they fit the format, and too coarse where they must round."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        if result.dtype != torch.float32:
            return result
        rounds = original(self, input_.to(torch.float64)) != result
        return torch.where(rounds, (result.view(torch.int32) & ~7).view(torch.float32), result)


@mutant(DEFECT, "VD-NUM-001", world_size=3)
def long_sums_have_a_narrow_accumulator(patch: Patch) -> None:
    """Partial sums of many elements of float32 are rounded to bfloat16."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        if input_.dtype != torch.float32 or input_.numel() < 1000 or self.world_size == 1:
            return original(self, input_)
        rows = self.all_gather(input_.reshape(1, -1), dim=0)
        total = rows[0]
        for row in rows[1:]:
            total = (total + row).to(torch.bfloat16).to(torch.float32)
        return total.view(input_.shape)


@mutant(DEFECT, "VD-AR-009", "VD-AR-001", world_size=3)
def inputs_are_scaled_before_the_sum(patch: Patch) -> None:
    """Each rank divides by the world size, and the sum is multiplied by it, as an average by presumming."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        if not input_.is_floating_point():
            return original(self, input_)
        return original(self, input_ / self.world_size) * self.world_size


@mutant(DEFECT, "VD-AR-003", world_size=3)
def one_rank_adds_in_another_order(patch: Patch) -> None:
    """Every rank adds up all inputs by itself, the last one in descending order: right, but not the same."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        if input_.dtype not in {torch.float32, torch.bfloat16} or not input_.numel():
            return original(self, input_)
        rows = list(self.all_gather(input_.reshape(1, -1), dim=0))
        if self.rank_in_group == self.world_size - 1:
            rows.reverse()
        total = rows[0].clone()
        for row in rows[1:]:
            total += row
        return total.view(input_.shape)


@mutant(DEFECT, "VD-AR-001", "VD-AR-003")
def last_element_is_not_summed_on_one_rank(patch: Patch) -> None:
    """On the last rank the last element of several is this rank's own."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        if result.numel() > 1 and self.rank_in_group == self.world_size - 1:
            result.view(-1)[-1] = input_.reshape(-1)[-1]
        return result


@mutant(DEFECT, "VD-AR-003", "VD-AR-001")
def one_rank_differs_in_one_bit(patch: Patch) -> None:
    """Rank 0's result has the lowest bit of its first byte flipped."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        return flip_bit(result) if self.world_size > 1 and self.rank_in_group == 0 else result


@mutant(DEFECT, "VD-AR-007")
def sum_loses_what_is_beyond_whole_blocks(patch: Patch) -> None:
    """Of sums of more than 65536 elements, those beyond a multiple of it are zero."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        return without_tail(original(self, input_), block=1 << 16)


@mutant(DEFECT, "VD-AR-007")
def sum_is_wrong_at_one_size_only(patch: Patch) -> None:
    """Of 127 elements, one less than a power of two, the last one is not summed."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        if result.numel() == 127 and self.world_size > 1:
            result.view(-1)[-1] = input_.reshape(-1)[-1]
        return result


@mutant(DEFECT, "VD-AR-008")
def sum_reads_from_the_last_aligned_address(patch: Patch) -> None:
    """A view that does not start at a multiple of 16 bytes is read from the multiple before it."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        too_far = input_.storage_offset() % max(1, 16 // input_.element_size())
        if too_far and input_.is_contiguous():
            start = input_.storage_offset() - too_far
            input_ = input_.as_strided(input_.shape, input_.stride(), start)
        return original(self, input_)


@mutant(DEFECT, "VD-AR-007", "VD-AR-006")
def sum_of_a_scalar_has_a_dimension(patch: Patch) -> None:
    """A 0-d tensor comes back with one dimension of one element."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        return result.view(1) if result.dim() == 0 else result


@mutant(DEFECT, "VD-AR-006")
def sum_of_bfloat16_stays_in_float32(patch: Patch) -> None:
    """The sum of bfloat16 comes back in the accumulator's dtype."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        return original(self, input_.to(torch.float32) if input_.dtype == torch.bfloat16 else input_)


@mutant(DEFECT, "VD-AR-006", issue="https://github.com/sgl-project/sglang/issues/29039")
def one_declared_dtype_is_refused(patch: Patch) -> None:
    """float16 is declared for sums and refused."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        if input_.dtype == torch.float16:
            raise TypeError("all_reduce cannot sum torch.float16")
        return original(self, input_)


@mutant(DEFECT, "VD-AR-010")
def sums_of_transposed_tensors_are_in_place(patch: Patch) -> None:
    """The sum of a tensor that is dense and not contiguous overwrites it, and another tensor is returned."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        if self.world_size > 1 and input_.dim() == 2 and input_.t().is_contiguous():
            input_.detach().copy_(result)
        return result


@mutant(DEFECT, "VD-AR-004", "VD-AR-005", issue="https://github.com/vllm-project/vllm/issues/39844")
def sum_works_in_place(patch: Patch) -> None:
    """The sum overwrites the input, and is the input."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        if self.world_size == 1 or 0 in input_.stride():
            return result
        return input_.copy_(result)
