"""One defect after the other, in every collective: contiguity, aliasing, inputs, sizes, formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..coordinator import GroupCoordinator  # noqa: TID252
from .registry import Original, Patch, mutant
from .tools import as_bytes, flip_bit, in_memory_order, is_expanded, without_tail

Tensor = torch.Tensor
Change = Callable[[Patch], None]


def each(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply to a tensor, to each of a list, or to nothing."""
    if isinstance(value, list):
        return [function(tensor) for tensor in value]
    return value if value is None else function(value)


def reads_in_memory_order(operation: str) -> Change:
    def change(patch: Patch) -> None:
        @patch.around(GroupCoordinator, operation)
        def call(original: Original, self: GroupCoordinator, input_: Any, *args: Any, **kwargs: Any) -> Any:
            return original(self, each(input_, in_memory_order), *args, **kwargs)

    return change


def changes_its_input(operation: str) -> Change:
    def flip_first(tensor: Tensor) -> Tensor:
        if tensor.numel() and not is_expanded(tensor):
            flip_bit(tensor.as_strided((1,), (1,)))
        return tensor

    def change(patch: Patch) -> None:
        @patch.around(GroupCoordinator, operation)
        def call(original: Original, self: GroupCoordinator, input_: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, input_, *args, **kwargs)
            each(input_, flip_first)
            return result

    return change


def returns_one_buffer_for_all(operation: str) -> Change:
    def change(patch: Patch) -> None:
        @patch.around(GroupCoordinator, operation)
        def call(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
            buffers = vars(self).setdefault("_buffers", {})

            def into_buffer(result: Tensor) -> Tensor:
                buffer: Tensor = buffers.setdefault((operation, tuple(result.shape), result.dtype), result)
                if buffer is not result:
                    as_bytes(buffer).copy_(as_bytes(result))
                return buffer

            return each(original(self, *args, **kwargs), into_buffer)

    return change


def returns_buffers_in_turns(operation: str) -> Change:
    def change(patch: Patch) -> None:
        @patch.around(GroupCoordinator, operation)
        def call(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
            rings = vars(self).setdefault("_rings", {})

            def into_next_buffer(result: Tensor) -> Tensor:
                ring: list[Tensor] = rings.setdefault((operation, tuple(result.shape), result.dtype), [])
                if len(ring) < BUFFERS:
                    ring.append(result)
                    return result
                ring.append(ring.pop(0))
                as_bytes(ring[-1]).copy_(as_bytes(result))
                return ring[-1]

            return each(original(self, *args, **kwargs), into_next_buffer)

    return change


def is_wrong_when_its_counter_wraps(operation: str) -> Change:
    def change(patch: Patch) -> None:
        @patch.around(GroupCoordinator, operation)
        def call(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
            counters = vars(self).setdefault("_counters", {})

            def counted(result: Tensor) -> Tensor:
                key = operation, tuple(result.shape), result.dtype
                counters[key] = (counters.get(key, 0) + 1) % COUNTED
                return result if counters[key] else torch.zeros_like(result)

            return each(original(self, *args, **kwargs), counted)

    return change


def loses_the_tail(operation: str) -> Change:
    def change(patch: Patch) -> None:
        @patch.around(GroupCoordinator, operation)
        def call(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            return each(result, lambda tensor: without_tail(tensor, block=4096))

    return change


def refuses_empty_tensors(operation: str) -> Change:
    def change(patch: Patch) -> None:
        @patch.around(GroupCoordinator, operation)
        def call(
            original: Original, self: GroupCoordinator, input_: Tensor, *args: Any, **kwargs: Any
        ) -> Any:
            if not input_.numel():
                raise RuntimeError(f"{operation} got an empty tensor")
            return original(self, input_, *args, **kwargs)

    return change


def makes_nans_quiet(operation: str) -> Change:
    def quiet(tensor: Tensor) -> Tensor:
        if tensor.dtype != torch.bfloat16:
            return tensor
        return torch.where(tensor.isnan(), torch.full_like(tensor, torch.nan), tensor)

    def change(patch: Patch) -> None:
        @patch.around(GroupCoordinator, operation)
        def call(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
            return each(original(self, *args, **kwargs), quiet)

    return change


def drops_signs_of_zeros(operation: str) -> Change:
    def unsigned(tensor: Tensor) -> Tensor:
        return torch.where(tensor == 0, tensor.abs(), tensor) if tensor.dtype == torch.float32 else tensor

    def change(patch: Patch) -> None:
        @patch.around(GroupCoordinator, operation)
        def call(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
            return each(original(self, *args, **kwargs), unsigned)

    return change


def returns_the_widest_format(operation: str) -> Change:
    def change(patch: Patch) -> None:
        @patch.around(GroupCoordinator, operation)
        def call(original: Original, self: GroupCoordinator, *args: Any, **kwargs: Any) -> Any:
            result: Tensor = original(self, *args, **kwargs)
            return result.to(torch.float32) if result.dtype in {torch.float16, torch.bfloat16} else result

    return change


STRIDES = "https://github.com/pytorch/pytorch/issues/62283"
BUFFERS = 64
COUNTED = 256
SCRATCH = "https://github.com/vllm-project/vllm/issues/58154"
KINDS: list[tuple[Callable[[str], Change], str, str, dict[str, str], str | None]] = [
    (
        reads_in_memory_order,
        "contiguity",
        "{} reads a view in memory order, as if it were contiguous.",
        {
            "all_reduce": "VD-AR-008",
            "all_gather": "VD-AG-005",
            "all_gatherv": "VD-AGV-006",
            "reduce_scatter": "VD-RS-007",
            "reduce_scatterv": "VD-RSV-006",
            "gather": "VD-GA-006",
            "send": "VD-P2P-004",
        },
        STRIDES,
    ),
    (
        changes_its_input,
        "aliasing",
        "{} leaves one bit of its input changed.",
        {
            "all_reduce": "VD-AR-004",
            "all_gather": "VD-AG-006",
            "all_gatherv": "VD-AGV-007",
            "reduce_scatter": "VD-RS-008",
            "reduce_scatterv": "VD-RSV-007",
            "gather": "VD-GA-007",
            "send": "VD-P2P-007",
        },
        None,
    ),
    (
        returns_one_buffer_for_all,
        "aliasing",
        "{} returns the same memory for every result of one shape and dtype.",
        {
            "all_reduce": "VD-AR-005",
            "all_gather": "VD-AG-007",
            "all_gatherv": "VD-AGV-007",
            "reduce_scatter": "VD-RS-009",
            "reduce_scatterv": "VD-RSV-007",
            "gather": "VD-GA-008",
            "recv": "VD-P2P-007",
        },
        SCRATCH,
    ),
    (
        returns_buffers_in_turns,
        "aliasing",
        f"{{}} returns {BUFFERS} buffers in turns for results of one shape and dtype.",
        {
            "all_reduce": "VD-AR-005",
            "all_gather": "VD-AG-007",
            "all_gatherv": "VD-AGV-007",
            "reduce_scatter": "VD-RS-009",
            "reduce_scatterv": "VD-RSV-007",
            "gather": "VD-GA-008",
        },
        SCRATCH,
    ),
    (
        is_wrong_when_its_counter_wraps,
        "values",
        f"Every {COUNTED}th result of {{}} of one shape and dtype is zero.",
        {
            "all_reduce": "VD-AR-001",
            "all_gather": "VD-AG-001",
            "all_gatherv": "VD-AGV-001",
            "reduce_scatter": "VD-RS-001",
            "reduce_scatterv": "VD-RSV-001",
            "gather": "VD-GA-001",
        },
        None,
    ),
    (
        loses_the_tail,
        "values",
        "Results of {} with more than 4096 elements are zero beyond a multiple of it.",
        {
            "all_gather": "VD-AG-004",
            "reduce_scatter": "VD-RS-006",
            "gather": "VD-GA-005",
            "recv": "VD-P2P-003",
        },
        None,
    ),
    (
        refuses_empty_tensors,
        "empty tensors",
        "{} raises an error for a tensor of no elements.",
        {
            "all_reduce": "VD-AR-007",
            "all_gather": "VD-AG-004",
            "reduce_scatter": "VD-RS-006",
            "gather": "VD-GA-005",
            "broadcast": "VD-BC-004",
            "send": "VD-P2P-003",
        },
        None,
    ),
    (
        makes_nans_quiet,
        "dtypes",
        "{} gives every NaN of bfloat16 the same bits.",
        {"all_gather": "VD-AG-003", "gather": "VD-GA-005", "recv": "VD-P2P-003"},
        None,
    ),
    (
        drops_signs_of_zeros,
        "dtypes",
        "{} moves float32 by adding it to zero, which turns -0 into 0.",
        {"all_gatherv": "VD-AGV-006", "recv": "VD-P2P-003"},
        None,
    ),
    (
        returns_the_widest_format,
        "dtypes",
        "{} of 16-bit floats comes back in float32.",
        {"reduce_scatter": "VD-RS-005", "reduce_scatterv": "VD-RSV-006"},
        None,
    ),
]
for _kind, _defect, _summary, _operations, _issue in KINDS:
    for _operation, _requirement in _operations.items():
        mutant(
            _defect,
            _requirement,
            name=f"{_operation}_{_kind.__name__}",
            summary=_summary.format(_operation),
            issue=_issue,
        )(_kind(_operation))
