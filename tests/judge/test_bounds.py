from __future__ import annotations

import random

import pytest
import torch

from pytest_vdist.judge import (
    accumulator_roundoff,
    bounded_input,
    compare_bounded,
    dtype_name,
    sum_bound,
)

from .simulated import FLOATS, any_tree, in_order, tree

HALVES = (torch.bfloat16, torch.float16)


def group_inputs(
    dtype: torch.dtype, world_size: int, *, count: int = 4000, seed: int = 1
) -> list[torch.Tensor]:
    return [
        bounded_input((count,), dtype, rank=r, world_size=world_size, seed=seed) for r in range(world_size)
    ]


def error_ratios(got: torch.Tensor, inputs: list[torch.Tensor], accumulate: str) -> torch.Tensor:
    bound = sum_bound(inputs, got.dtype, accumulate)
    return (got.to(torch.float64) - bound.total.high - bound.total.low).abs() / bound.limit


@pytest.mark.parametrize("dtype", FLOATS, ids=dtype_name)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8, 17])
def test_the_native_bound_holds_for_rings_and_trees_that_round_at_every_hop(
    dtype: torch.dtype, world_size: int
) -> None:
    inputs = group_inputs(dtype, world_size, count=1000)
    bound = sum_bound(inputs, dtype, "native")
    choice = random.Random(0)
    for got in (in_order(inputs, dtype), tree(inputs, dtype), any_tree(inputs, dtype, choice)):
        assert isinstance(compare_bounded(got, bound.total, bound.limit), float)


@pytest.mark.parametrize("dtype", HALVES, ids=dtype_name)
@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_the_fp32_bound_holds_for_one_final_rounding_and_is_sharp(
    dtype: torch.dtype, world_size: int
) -> None:
    inputs = group_inputs(dtype, world_size)
    for got in (in_order(inputs, torch.float32), tree(inputs, torch.float32)):
        assert 0.9 < error_ratios(got, inputs, "fp32").max() <= 1.0


@pytest.mark.parametrize("dtype", FLOATS, ids=dtype_name)
def test_the_exact_bound_holds_for_the_rounded_exact_sum(dtype: torch.dtype) -> None:
    inputs = group_inputs(dtype, 8)
    bound = sum_bound(inputs, dtype, "exact")
    assert isinstance(compare_bounded(bound.total.high.to(dtype), bound.total, bound.limit), float)


@pytest.mark.parametrize("dtype", HALVES, ids=dtype_name)
@pytest.mark.parametrize(("world_size", "low", "high"), [(4, 0.13, 0.33), (8, 0.28, 0.52)])
def test_a_ring_that_rounds_at_every_hop_breaks_a_declared_fp32_accumulator(
    dtype: torch.dtype, world_size: int, low: float, high: float
) -> None:
    inputs = group_inputs(dtype, world_size)
    outside = (error_ratios(in_order(inputs, dtype), inputs, "fp32") > 1.0).double().mean().item()
    assert low < outside < high


def test_the_native_bound_is_not_slack_for_a_ring_of_two() -> None:
    inputs = group_inputs(torch.bfloat16, 2)
    assert 0.4 < error_ratios(in_order(inputs, torch.bfloat16), inputs, "native").max() <= 1.0


def test_a_declared_tree_has_a_tighter_bound_that_a_ring_breaks_and_a_tree_keeps() -> None:
    one, small = torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([2.0**-8], dtype=torch.bfloat16)
    inputs = [one] + [small] * 63
    bound = sum_bound(inputs, torch.bfloat16, "native", additions=6)
    assert isinstance(compare_bounded(tree(inputs, torch.bfloat16), bound.total, bound.limit), float)
    assert not isinstance(compare_bounded(in_order(inputs, torch.bfloat16), bound.total, bound.limit), float)
    wide = sum_bound(inputs, torch.bfloat16, "native")
    assert isinstance(compare_bounded(in_order(inputs, torch.bfloat16), wide.total, wide.limit), float)


def test_cancellation_does_not_shrink_the_bound() -> None:
    inputs = [torch.tensor([value], dtype=torch.bfloat16) for value in (256.0, 1.0, -256.0)]
    bound = sum_bound(inputs, torch.bfloat16, "native")
    assert bound.total.high.item() == 1.0
    assert bound.limit.item() > 2 * 2.0**-8 * 513


def test_the_limit_is_the_documented_formula() -> None:
    inputs = [torch.tensor([value], dtype=torch.float16) for value in (3.0, -1.0, 0.5)]
    limit = sum_bound(inputs, torch.float16, "fp32").limit.item()
    want = 2 * 2.0**-24 * 4.5 * (1 + 2.0**-11) + 2.0**-11 * 2.5 + 2.0**-25
    assert limit == pytest.approx(want, rel=1e-13)
    assert limit >= want


def test_the_accumulator_decides_the_roundoff() -> None:
    names = {
        name: accumulator_roundoff(name, torch.float16)
        for name in ("native", "fp32", "fp64", "bf16", "exact")
    }
    assert names == {"native": 2.0**-11, "fp32": 2.0**-24, "fp64": 2.0**-53, "bf16": 2.0**-8, "exact": 0.0}


def test_an_unknown_accumulator_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown accumulator 'tf32'; known are native, exact, fp64, fp32"):
        sum_bound([torch.zeros(1)], torch.float32, "tf32")


def test_a_negative_number_of_additions_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot take -1 additions"):
        sum_bound([torch.zeros(1)], torch.float32, "native", additions=-1)
