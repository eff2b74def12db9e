"""Collectives in compiled code: operators that lie about themselves, find other groups or break graphs."""

from __future__ import annotations

from typing import Any

import torch

from .. import custom_ops, names  # noqa: TID252
from ..coordinator import GroupCoordinator  # noqa: TID252
from ..custom_ops import Operators  # noqa: TID252
from .registry import Original, Patch, mutant

DEFECT = "compilation"
FAKES = "fake implementations"
IN_PLACE = "https://github.com/vllm-project/vllm/issues/41354"
SCRATCH = "https://github.com/vllm-project/vllm/issues/58154"
Tensor = torch.Tensor


class _Stand:
    """A group whose all_reduce is another one."""

    def __init__(self, group: Any, all_reduce: Any) -> None:
        self._group = group
        self.all_reduce = all_reduce

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)


@mutant(
    DEFECT, "VD-CMP-001", compile_mode="aot_eager", issue="https://github.com/vllm-project/vllm/issues/39844"
)
def compiled_sums_are_the_inputs(patch: Patch) -> None:
    """In compiled code all_reduce gives each rank its own input."""

    @patch.around(Operators, "all_reduce")
    def all_reduce(original: Original, self: Operators, input_: Tensor) -> Tensor:
        return input_.clone()


@mutant(DEFECT, "VD-CMP-013", "VD-CMP-002", issue=IN_PLACE)
def the_operator_returns_its_input(patch: Patch) -> None:
    """The operator for sums works in place and returns its input, though its schema says neither."""

    @patch.around(custom_ops, "_find")
    def find(original: Original, group_name: str) -> Any:
        group = original(group_name)
        return _Stand(group, lambda input_: input_.copy_(group.all_reduce(input_)))


@mutant(DEFECT, "VD-CMP-002", "VD-CMP-013", compile_mode="aot_eager", issue=IN_PLACE)
def the_operator_writes_to_its_input(patch: Patch) -> None:
    """The operator for sums leaves its result in its input as well."""

    @patch.around(custom_ops, "_find")
    def find(original: Original, group_name: str) -> Any:
        group = original(group_name)

        def all_reduce(input_: Tensor) -> Tensor:
            result: Tensor = group.all_reduce(input_)
            if not any(stride == 0 for stride in input_.stride()):
                input_.copy_(result)
            return result

        return _Stand(group, all_reduce)


@mutant(DEFECT, "VD-CMP-003", compile_mode="aot_eager", issue=SCRATCH)
def compiled_sums_share_a_buffer(patch: Patch) -> None:
    """The operator for sums returns the same memory for every result of one shape."""
    buffers: dict[Any, Tensor] = {}

    @patch.around(custom_ops, "_find")
    def find(original: Original, group_name: str) -> Any:
        group = original(group_name)

        def all_reduce(input_: Tensor) -> Tensor:
            result: Tensor = group.all_reduce(input_)
            key = (group_name, tuple(result.shape), result.dtype)
            return buffers.setdefault(key, result).copy_(result)

        return _Stand(group, all_reduce)


@mutant(DEFECT, "VD-PRG-004", compile_mode="aot_eager")
def only_float32_is_summed_in_compiled_code(patch: Patch) -> None:
    """In compiled code all_reduce of another dtype than float32 gives each rank its own input."""

    @patch.around(Operators, "all_reduce")
    def all_reduce(original: Original, self: Operators, input_: Tensor) -> Tensor:
        return original(self, input_) if input_.dtype == torch.float32 else input_.clone()


@mutant(DEFECT, "VD-CMP-004", compile_mode="aot_eager")
def compiled_gathers_come_backwards(patch: Patch) -> None:
    """In compiled code the gathered parts come in descending order of the ranks."""

    @patch.around(Operators, "all_gather")
    def all_gather(original: Original, self: Operators, input_: Tensor, dim: int) -> Tensor:
        return torch.cat(original(self, input_, dim).chunk(self.world_size, dim)[::-1], dim)


@mutant(DEFECT, "VD-CMP-005", "VD-CMP-001", compile_mode="aot_eager")
def compiled_sums_lack_the_last_row(patch: Patch) -> None:
    """In compiled code the last row of a sum is each rank's own."""

    @patch.around(Operators, "all_reduce")
    def all_reduce(original: Original, self: Operators, input_: Tensor) -> Tensor:
        result: Tensor = original(self, input_)
        return torch.cat([result[:-1], input_[-1:]])


@mutant(
    DEFECT, "VD-CMP-006", compile_mode="aot_eager", issue="https://github.com/pytorch/pytorch/issues/138795"
)
def sizes_are_compiled_in(patch: Patch) -> None:
    """Every number of rows needs a graph of its own."""

    @patch.around(Operators, "all_reduce")
    def all_reduce(original: Original, self: Operators, input_: Tensor) -> Tensor:
        rows = 0
        for _ in range(input_.shape[0]):
            rows += 1
        return original(self, input_).narrow(0, 0, rows)


@mutant(DEFECT, "VD-CMP-007", compile_mode="aot_eager")
def sums_break_the_graph(patch: Patch) -> None:
    """The call of the operator is kept out of compiled code."""
    disable: Any = torch.compiler.disable
    patch.value(Operators, "all_reduce", disable(Operators.all_reduce))


@mutant(DEFECT, "VD-CMP-008", compile_mode="aot_eager")
def sums_need_autograd(patch: Patch) -> None:
    """In compiled code without autograd all_reduce gives each rank its own input."""

    @patch.around(Operators, "all_reduce")
    def all_reduce(original: Original, self: Operators, input_: Tensor) -> Tensor:
        return original(self, input_) if torch.is_grad_enabled() else input_.clone()


@mutant("groups", "VD-CMP-009", compile_mode="aot_eager")
def operators_use_the_first_group_of_that_size(patch: Patch) -> None:
    """Of several groups with as many ranks, the oldest one serves all."""

    @patch.around(custom_ops, "_find_of_size")
    def find(original: Original, group_name: str, world_size: int) -> Any:
        living = [group for group in names.living() if isinstance(group, GroupCoordinator)]
        return next(group for group in living if group.world_size == world_size)


@mutant("groups", "VD-CMP-015", "VD-CMP-009")
def operators_keep_the_first_group_that_they_meet(patch: Patch) -> None:
    """All calls go to the group of the first one."""
    first: list[Any] = []

    @patch.around(custom_ops, "_find")
    def find(original: Original, group_name: str) -> Any:
        first.append(original(group_name))
        return first[0]


@mutant("use after destroy", "VD-CMP-010", compile_mode="aot_eager")
def operators_remember_groups_by_name(patch: Patch) -> None:
    """A group that is made again under a name is not found: the destroyed one is."""
    known: dict[str, Any] = {}

    @patch.around(custom_ops, "_find")
    def find(original: Original, group_name: str) -> Any:
        if group_name not in known:
            known[group_name] = original(group_name)
        return known[group_name]


@mutant("error texts", "VD-CMP-011", "VD-CMP-015", compile_mode="aot_eager")
def operators_do_not_name_the_group_that_is_gone(patch: Patch) -> None:
    """A destroyed group is refused without saying which."""

    @patch.around(custom_ops, "_find")
    def find(original: Original, group_name: str) -> Any:
        try:
            return original(group_name)
        except ValueError:
            raise RuntimeError("no such group") from None


@mutant(FAKES, "VD-CMP-014", issue="https://github.com/vllm-project/vllm/issues/8526")
def fakes_change_the_first_dimension(patch: Patch) -> None:
    """Fake implementations lengthen or shorten the first dimension, whatever the real ones do."""

    @patch.around(custom_ops, "_empty")
    def empty(original: Original, input_: Tensor, dim: int, size: int) -> Tensor:
        shape = list(input_.shape)
        shape[0] = shape[0] * size // shape[dim] if shape[dim] else shape[0]
        return input_.new_empty(shape)


@mutant(FAKES, "VD-CMP-014")
def fakes_have_other_strides(patch: Patch) -> None:
    """Fake implementations return the transpose of what the real ones return."""

    @patch.around(custom_ops, "_empty")
    def empty(original: Original, input_: Tensor, dim: int, size: int) -> Tensor:
        made: Tensor = original(input_, dim, size)
        return made.new_empty(made.shape[::-1]).permute(*range(made.dim())[::-1])


@mutant(FAKES, "VD-CMP-014")
def fakes_have_another_dtype(patch: Patch) -> None:
    """Fake implementations return float32 for 16-bit floats."""

    @patch.around(custom_ops, "_empty")
    def empty(original: Original, input_: Tensor, dim: int, size: int) -> Tensor:
        made: Tensor = original(input_, dim, size)
        return made.float() if made.dtype in {torch.float16, torch.bfloat16} else made
