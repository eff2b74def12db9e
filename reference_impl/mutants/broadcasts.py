"""Broadcasts that come from the wrong rank, reach the wrong elements, or do not fill the tensor given."""

from __future__ import annotations

import torch

from ..coordinator import GroupCoordinator  # noqa: TID252
from ..wire import fresh, write_back  # noqa: TID252
from .registry import Original, Patch, mutant
from .tools import flip_bit, in_memory_order, is_expanded

Tensor = torch.Tensor


@mutant("values", "VD-BC-001")
def broadcast_keeps_the_first_element(patch: Patch) -> None:
    """On the last rank the first element stays what it was."""

    @patch.around(GroupCoordinator, "broadcast")
    def broadcast(original: Original, self: GroupCoordinator, input_: Tensor, src: int = 0) -> Tensor:
        before = input_.clone()
        result: Tensor = original(self, input_, src)
        last = self.world_size > 1 and self.rank_in_group == self.world_size - 1
        if last and input_.numel() and input_.is_contiguous():
            result.view(-1)[:1] = before.view(-1)[:1]
        return result


@mutant("aliasing", "VD-BC-002")
def broadcast_returns_none(patch: Patch) -> None:
    """The tensor is filled, and None comes back."""

    @patch.around(GroupCoordinator, "broadcast")
    def broadcast(original: Original, self: GroupCoordinator, input_: Tensor, src: int = 0) -> None:
        original(self, input_, src)


@mutant("aliasing", "VD-BC-002")
def broadcast_fills_a_copy(patch: Patch) -> None:
    """The result is a filled copy; the tensor given stays as it was."""

    @patch.around(GroupCoordinator, "broadcast")
    def broadcast(original: Original, self: GroupCoordinator, input_: Tensor, src: int = 0) -> Tensor:
        return original(self, fresh(input_), src)


@mutant("rank mapping", "VD-BC-003")
def broadcast_always_comes_from_the_first_rank(patch: Patch) -> None:
    """`src` is not looked at."""

    @patch.around(GroupCoordinator, "broadcast")
    def broadcast(original: Original, self: GroupCoordinator, input_: Tensor, src: int = 0) -> Tensor:
        return original(self, input_, src * 0)


@mutant("rank mapping", "VD-BC-003", "VD-GRP-002", world_size=4)
def broadcast_takes_the_source_for_a_global_rank(patch: Patch) -> None:
    """In a subgroup that has such a global rank, that one is the source."""

    @patch.around(GroupCoordinator, "broadcast")
    def broadcast(original: Original, self: GroupCoordinator, input_: Tensor, src: int = 0) -> Tensor:
        return original(self, input_, self.ranks.index(src) if src in self.ranks else src)


@mutant("dtypes", "VD-BC-004")
def broadcast_loses_the_last_of_an_odd_number_of_bytes(patch: Patch) -> None:
    """Elements of one byte travel in pairs."""

    @patch.around(GroupCoordinator, "broadcast")
    def broadcast(original: Original, self: GroupCoordinator, input_: Tensor, src: int = 0) -> Tensor:
        if input_.element_size() > 1 or not input_.is_contiguous() or not input_.numel() % 2:
            return original(self, input_, src)
        original(self, input_.as_strided((input_.numel() - 1,), (1,)), src)
        return input_


@mutant("contiguity", "VD-BC-005")
def broadcast_fills_a_contiguous_copy_of_a_view(patch: Patch) -> None:
    """What arrives for a view goes into a temporary copy."""

    @patch.around(GroupCoordinator, "broadcast")
    def broadcast(original: Original, self: GroupCoordinator, input_: Tensor, src: int = 0) -> Tensor:
        original(self, input_ if input_.is_contiguous() else fresh(input_), src)
        return input_


@mutant("contiguity", "VD-BC-005", issue="https://github.com/pytorch/pytorch/issues/62283")
def broadcast_reads_and_writes_in_memory_order(patch: Patch) -> None:
    """Views are sent and filled as if they were contiguous."""

    @patch.around(GroupCoordinator, "broadcast")
    def broadcast(original: Original, self: GroupCoordinator, input_: Tensor, src: int = 0) -> Tensor:
        original(self, in_memory_order(input_), src)
        return input_


@mutant("contiguity", "VD-BC-005")
def broadcast_overwrites_the_gaps_of_a_view(patch: Patch) -> None:
    """The memory between the elements of a view that is filled is set to zero."""

    @patch.around(GroupCoordinator, "broadcast")
    def broadcast(original: Original, self: GroupCoordinator, input_: Tensor, src: int = 0) -> Tensor:
        result: Tensor = original(self, input_, src)
        receives = self.world_size > 1 and self.rank_in_group != src
        if receives and input_.numel() > 1 and not input_.is_contiguous() and not is_expanded(input_):
            values = fresh(input_)
            reach = sum((size - 1) * step for size, step in zip(input_.shape, input_.stride(), strict=True))
            input_.as_strided((reach + 1,), (1,)).zero_()
            write_back(input_, values)
        return result


@mutant("aliasing", "VD-BC-006")
def broadcast_changes_the_source(patch: Patch) -> None:
    """The source's tensor has one bit flipped after the others have it."""

    @patch.around(GroupCoordinator, "broadcast")
    def broadcast(original: Original, self: GroupCoordinator, input_: Tensor, src: int = 0) -> Tensor:
        result: Tensor = original(self, input_, src)
        if self.world_size > 1 and self.rank_in_group == src and input_.is_contiguous():
            flip_bit(input_)
        return result
