"""Bad arguments that are accepted, or refused too late, on some ranks only, or without a reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from .. import tensor_dict  # noqa: TID252
from ..arguments import Arguments  # noqa: TID252
from ..coordinator import GroupCoordinator  # noqa: TID252
from ..tensor_dict import TensorDictChannel  # noqa: TID252
from .registry import Original, Patch, mutant

DEFECT = "arguments"
Tensor = torch.Tensor


@mutant(DEFECT, "VD-ERR-001")
def negative_ranks_count_from_the_end(patch: Patch) -> None:
    """src=-1 is the last rank."""

    @patch.around(Arguments, "rank")
    def rank(original: Original, self: Arguments, value: int, name: str) -> int:
        return original(self, value % self.world_size if value < 0 else value, name)


@mutant(DEFECT, "VD-ERR-001", world_size=4, issue="https://github.com/pytorch/torchrec/issues/4601")
def global_ranks_are_accepted_in_subgroups(patch: Patch) -> None:
    """A rank that only the world has is taken modulo the size of the group."""

    @patch.around(GroupCoordinator, "broadcast")
    def broadcast(original: Original, self: GroupCoordinator, input_: Tensor, src: int = 0) -> Tensor:
        known = self.world_size <= src < dist.get_world_size()
        return original(self, input_, src % self.world_size if known else src)


@mutant(DEFECT, "VD-ERR-001")
def destinations_of_gather_are_not_checked(patch: Patch) -> None:
    """gather takes any destination, modulo the world size."""

    @patch.around(GroupCoordinator, "gather")
    def gather(
        original: Original, self: GroupCoordinator, input_: Tensor, dst: int = 0, dim: int = -1
    ) -> Any:
        return original(self, input_, dst % self.world_size, dim)


@mutant(DEFECT, "VD-ERR-002")
def dimensions_wrap_around(patch: Patch) -> None:
    """all_gather takes any dimension, modulo their number."""

    @patch.around(GroupCoordinator, "all_gather")
    def all_gather(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1) -> Tensor:
        return original(self, input_, dim % input_.dim() if input_.dim() else dim)


@mutant(DEFECT, "VD-ERR-002", world_size=1)
def one_rank_alone_checks_no_dimension(patch: Patch) -> None:
    """In a group of one rank any dimension is accepted."""

    @patch.around(Arguments, "dim")
    def dim(original: Original, self: Arguments, tensor: Tensor, dim: int, operation: str) -> int:
        return 0 if self.world_size == 1 else original(self, tensor, dim, operation)


@mutant("hangs", "VD-ERR-002")
def dimensions_are_checked_after_the_first_message(patch: Patch) -> None:
    """all_gather meets the other ranks before it looks at the dimension."""

    @patch.around(GroupCoordinator, "all_gather")
    def all_gather(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1) -> Tensor:
        self.barrier()
        return original(self, input_, dim)


@mutant(DEFECT, "VD-ERR-003")
def rows_that_do_not_divide_are_cut_off(patch: Patch) -> None:
    """reduce_scatter leaves out the rows beyond equal parts."""

    @patch.around(GroupCoordinator, "reduce_scatter")
    def reduce_scatter(original: Original, self: GroupCoordinator, input_: Tensor, dim: int = -1) -> Tensor:
        if -input_.dim() <= dim < input_.dim():
            input_ = input_.narrow(dim, 0, input_.shape[dim] // self.world_size * self.world_size)
        return original(self, input_, dim)


@mutant(DEFECT, "VD-ERR-004")
def missing_sizes_are_zero(patch: Patch) -> None:
    """Too few sizes are filled up with zeros, and too many are cut off."""

    @patch.around(Arguments, "sizes")
    def sizes(original: Original, self: Arguments, sizes: Sequence[int], operation: str) -> list[int]:
        filled = [*sizes, *[0] * self.world_size]
        return original(self, filled[: self.world_size], operation)


@mutant(DEFECT, "VD-ERR-004", issue="https://github.com/vllm-project/vllm/issues/21963")
def sizes_may_contradict_the_tensor(patch: Patch) -> None:
    """all_gatherv believes in sizes that the rank's own tensor does not have."""

    @patch.around(Arguments, "own_size")
    def own_size(original: Original, self: Arguments, *args: Any) -> None:
        return None


@mutant(DEFECT, "VD-ERR-005")
def messages_to_oneself_are_dropped(patch: Patch) -> None:
    """What a rank sends to itself is accepted and goes nowhere."""

    @patch.around(GroupCoordinator, "send_object")
    def send_object(original: Original, self: GroupCoordinator, obj: Any, dst: int) -> None:
        if dst != self.rank_in_group:
            original(self, obj, dst)


@mutant("hangs", "VD-ERR-006")
def only_the_source_hears_that_there_is_no_dictionary(patch: Patch) -> None:
    """The source raises, and the other ranks wait."""

    @patch.around(TensorDictChannel, "_split_or_refuse")
    def split_or_refuse(
        original: Original,
        self: TensorDictChannel,
        values: Any,
        slicing: Any,
        refuse: Any,
    ) -> Any:
        return original(self, values, slicing, lambda refusal: None)  # noqa: ARG005


@mutant(DEFECT, "VD-ERR-006")
def anything_else_is_sent_as_an_empty_dictionary(patch: Patch) -> None:
    """What is no dictionary arrives as one without keys."""

    @patch.around(tensor_dict, "split")
    def split(original: Original, values: Any, *args: Any) -> Any:
        return original(values if isinstance(values, dict) else {}, *args)

    @patch.around(Arguments, "tensor_dict")
    def checked(original: Original, self: Arguments, value: Any) -> Any:
        return original(self, value if isinstance(value, dict) else {})


@mutant("dtypes", "VD-ERR-007")
def one_rank_refuses_a_dtype_that_others_sum(patch: Patch) -> None:
    """Rank 0 refuses complex64, and the others wait for it."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        if input_.dtype == torch.complex64 and self.rank_in_group == 0 and self.world_size > 1:
            raise TypeError("all_reduce cannot sum torch.complex64")
        return original(self, input_)


@mutant("dtypes", "VD-ERR-007")
def undeclared_dtypes_are_summed_as_bytes(patch: Patch) -> None:
    """A dtype that cannot be summed is taken for uint8."""

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        try:
            return original(self, input_)
        except TypeError:
            return original(self, input_.contiguous().view(torch.uint8)).view(input_.dtype)


@mutant("error texts", "VD-ERR-008")
def errors_are_bare_assertions(patch: Patch) -> None:
    """A rank outside the group is refused by an assertion that says nothing."""

    @patch.around(Arguments, "rank")
    def rank(original: Original, self: Arguments, value: int, name: str) -> int:
        try:
            return original(self, value, name)
        except ValueError:
            raise AssertionError from None


@mutant("error texts", "VD-ERR-008")
def errors_about_sizes_do_not_name_them(patch: Patch) -> None:
    """Sizes that contradict the tensor are refused without saying which."""

    @patch.around(Arguments, "own_size")
    def own_size(original: Original, self: Arguments, *args: Any) -> None:
        try:
            original(self, *args)
        except ValueError:
            raise ValueError(f"wrong for {self.world_size} ranks") from None


@mutant(DEFECT, "VD-ERR-009")
def a_refusal_spoils_the_next_sum(patch: Patch) -> None:
    """After a refused rank the next sum is one too large."""

    @patch.around(Arguments, "rank")
    def rank(original: Original, self: Arguments, value: int, name: str) -> int:
        try:
            return original(self, value, name)
        except ValueError:
            refused.add(self.group)
            raise

    refused: set[str] = set()

    @patch.around(GroupCoordinator, "all_reduce")
    def all_reduce(original: Original, self: GroupCoordinator, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        if self.unique_name in refused:
            refused.discard(self.unique_name)
            result = result + 1
        return result
