"""Implementations with one thing wrong each: the judge must find all of them and clear the right ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pytest_vdist.judge import (
    Observation,
    all_reduce,
    assert_bounded,
    assert_exact,
    assert_same_on_all_ranks,
    bounded_input,
    dtype_name,
    exact_sum_input,
    observe,
    one_hot_input,
)

from .simulated import in_order, tree

Tensors = list[torch.Tensor]
Implementation = Callable[[Tensors], Tensors]

RANKS = 4
COUNT = 256
BF16, FP32 = torch.bfloat16, torch.float32


def wide_sum(inputs: Tensors) -> torch.Tensor:
    """Sum as the declaration says: fp32 for bf16 data, and fp32 as well for fp32 data."""
    return in_order(inputs, FP32)


def right(inputs: Tensors) -> Tensors:
    return [wide_sum(inputs)] * RANKS


def right_tree(inputs: Tensors) -> Tensors:
    return [tree(inputs, FP32)] * RANKS


def dropped_rank(inputs: Tensors) -> Tensors:
    return [wide_sum(inputs[:-1])] * RANKS


def dropped_rank_at_the_end(inputs: Tensors) -> Tensors:
    total = wide_sum(inputs).clone()
    total[-3:] = wide_sum(inputs[1:])[-3:]
    return [total] * RANKS


def doubled_rank(inputs: Tensors) -> Tensors:
    return [wide_sum([*inputs, inputs[2]])] * RANKS


def stale_element(inputs: Tensors) -> Tensors:
    total = wide_sum(inputs).clone()
    total[100] = inputs[0][100]
    return [total] * RANKS


def swapped_chunks(inputs: Tensors) -> Tensors:
    first, second, *rest = wide_sum(inputs).chunk(8)
    return [torch.cat([second, first, *rest])] * RANKS


def one_wrong_bit_of_one_rank(inputs: Tensors) -> Tensors:
    sent = [each.clone() for each in inputs]
    sent[1].view(torch.uint8)[77 * sent[1].element_size()] ^= 1
    return right(sent)


def fp8_on_the_wire(inputs: Tensors) -> Tensors:
    return right([each.to(torch.float8_e4m3fn).to(each.dtype) for each in inputs])


def half_as_wide_on_the_wire(inputs: Tensors) -> Tensors:
    narrow = torch.float16 if inputs[0].dtype == FP32 else torch.float8_e5m2
    return right([each.to(narrow).to(each.dtype) for each in inputs])


def rounding_at_every_hop(inputs: Tensors) -> Tensors:
    return [in_order(inputs, BF16)] * RANKS


def truncation_at_the_end(inputs: Tensors) -> Tensors:
    exact = in_order([each.double() for each in inputs], torch.float64)
    rounded = exact.to(inputs[0].dtype)
    integer = torch.int16 if rounded.element_size() == 2 else torch.int32
    towards_zero = (rounded.view(integer) - 1).view(rounded.dtype)
    return [torch.where(rounded.double().abs() > exact.abs(), towards_zero, rounded)] * RANKS


def different_order_on_one_rank(inputs: Tensors) -> Tensors:
    native = inputs[0].dtype
    return [*[in_order(inputs, native)] * (RANKS - 1), in_order([inputs[i] for i in (3, 1, 0, 2)], native)]


def last_element_not_reduced_on_one_rank(inputs: Tensors) -> Tensors:
    total = wide_sum(inputs)
    partial = total.clone()
    partial[-1] = inputs[3][-1]
    return [*[total] * (RANKS - 1), partial]


def average_instead_of_sum(inputs: Tensors) -> Tensors:
    return [each / RANKS for each in right(inputs)]


def own_input_left_out_everywhere(inputs: Tensors) -> Tensors:
    return [wide_sum(inputs[:rank] + inputs[rank + 1 :]) for rank in range(RANKS)]


EVERY_DTYPE = [
    dropped_rank,
    dropped_rank_at_the_end,
    doubled_rank,
    stale_element,
    swapped_chunks,
    one_wrong_bit_of_one_rank,
    fp8_on_the_wire,
    half_as_wide_on_the_wire,
    rounding_at_every_hop,
    different_order_on_one_rank,
    last_element_not_reduced_on_one_rank,
    average_instead_of_sum,
    own_input_left_out_everywhere,
]


def judge_exact_sums(implementation: Implementation, dtype: torch.dtype) -> None:
    inputs = [exact_sum_input((COUNT,), dtype, rank=r, world_size=RANKS, seed=7) for r in range(RANKS)]
    assert_exact(
        seen(implementation, inputs), list(all_reduce(inputs)), call="all_reduce()", zeros_equal=True
    )


def judge_one_hot_sums(implementation: Implementation, dtype: torch.dtype) -> None:
    for hot in range(RANKS):
        inputs = [
            one_hot_input((COUNT,), dtype, rank=r, world_size=RANKS, seed=7, hot_rank=hot)
            for r in range(RANKS)
        ]
        assert_exact(
            seen(implementation, inputs), list(all_reduce(inputs)), call="all_reduce()", zeros_equal=True
        )


def judge_bounded_sums(implementation: Implementation, dtype: torch.dtype) -> None:
    inputs = [bounded_input((COUNT,), dtype, rank=r, world_size=RANKS, seed=7) for r in range(RANKS)]
    assert_bounded(seen(implementation, inputs), inputs, accumulate="fp32", call="all_reduce()")


def judge_equal_ranks(implementation: Implementation, dtype: torch.dtype) -> None:
    inputs = [bounded_input((COUNT,), dtype, rank=r, world_size=RANKS, seed=7) for r in range(RANKS)]
    assert_same_on_all_ranks(seen(implementation, inputs), call="all_reduce()")


CHECKS = (judge_exact_sums, judge_one_hot_sums, judge_bounded_sums, judge_equal_ranks)


def seen(implementation: Implementation, inputs: Tensors) -> list[Observation]:
    return [observe(output) for output in implementation(inputs)]


def complaints(implementation: Implementation, dtype: torch.dtype) -> list[str]:
    found = []
    for check in CHECKS:
        try:
            check(implementation, dtype)
        except AssertionError:
            found.append(check.__name__)
    return found


@pytest.mark.parametrize("dtype", [BF16, FP32], ids=dtype_name)
@pytest.mark.parametrize("implementation", [right, right_tree])
def test_a_right_implementation_is_cleared(implementation: Implementation, dtype: torch.dtype) -> None:
    assert complaints(implementation, dtype) == []


@pytest.mark.parametrize("dtype", [BF16, FP32], ids=dtype_name)
@pytest.mark.parametrize("defect", EVERY_DTYPE)
def test_a_defect_is_found(defect: Implementation, dtype: torch.dtype) -> None:
    assert complaints(defect, dtype) != []


def test_truncation_is_found_by_the_bound_of_the_declared_accumulator() -> None:
    assert complaints(truncation_at_the_end, BF16) == ["judge_bounded_sums"]


@pytest.mark.parametrize(
    ("defect", "found_by"),
    [
        (dropped_rank_at_the_end, "judge_exact_sums"),
        (stale_element, "judge_exact_sums"),
        (swapped_chunks, "judge_exact_sums"),
        (one_wrong_bit_of_one_rank, "judge_one_hot_sums"),
        (half_as_wide_on_the_wire, "judge_one_hot_sums"),
        (rounding_at_every_hop, "judge_bounded_sums"),
        (different_order_on_one_rank, "judge_equal_ranks"),
        (last_element_not_reduced_on_one_rank, "judge_equal_ranks"),
    ],
)
def test_each_check_finds_what_it_is_for(defect: Implementation, found_by: str) -> None:
    assert found_by in complaints(defect, BF16)


def test_no_check_but_its_own_finds_a_rounding_defect_in_bf16() -> None:
    assert complaints(rounding_at_every_hop, BF16) == ["judge_bounded_sums"]
