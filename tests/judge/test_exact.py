from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_vdist.judge import dtype_name, exact_sum
from pytest_vdist.judge.exact import exact_total

from .simulated import INTEGERS

numbers = st.floats(-1e300, 1e300, allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=9))
def test_exact_sums_agree_with_rational_numbers(values: list[float]) -> None:
    total = exact_sum([torch.tensor([value], dtype=torch.float64) for value in values])
    want = sum(map(Fraction, values), Fraction(0))
    high, low = total.high.item(), total.low.item()
    assert high == float(want)
    assert low == float(want - Fraction(high))


def test_a_sum_that_two_numbers_cannot_hold_is_still_rounded_right() -> None:
    values = [1.0, 2.0**-60, 2.0**-120, 2.0**-180, -1.0, -(2.0**-60)]
    total = exact_sum([torch.tensor([value, 1.0], dtype=torch.float64) for value in values])
    assert total.high.tolist() == [2.0**-120 + 2.0**-180, 6.0]
    assert total.low.tolist() == [2.0**-180 - (total.high[0].item() - 2.0**-120), 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not all finite"):
        exact_sum([torch.tensor([bad])])


def test_a_sum_beyond_fp64_is_refused() -> None:
    with pytest.raises(ValueError, match="overflows fp64"):
        exact_sum([torch.tensor([1.7e308], dtype=torch.float64)] * 2)


def test_addends_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape and one dtype.*\(2,\).*\(3,\)"):
        exact_sum([torch.zeros(2), torch.zeros(3)])


@pytest.mark.parametrize("dtype", INTEGERS, ids=dtype_name)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_integer_totals_wrap_at_the_width_of_the_dtype(dtype: torch.dtype, data: st.DataObject) -> None:
    info = torch.iinfo(dtype)
    values = data.draw(st.lists(st.integers(info.min, info.max), min_size=1, max_size=6))
    total = exact_total([torch.tensor([value], dtype=dtype) for value in values])
    assert total.dtype == dtype
    assert total.item() == (sum(values) - info.min) % 2**info.bits + info.min


def test_the_total_of_bools_is_their_or() -> None:
    total = exact_total([torch.tensor([False, True, True]), torch.tensor([False, True, False])])
    assert total.tolist() == [False, True, True]


def test_a_float_total_that_must_round_is_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match=r"not representable in bfloat16.*exact_sum_input.*assert_bounded"):
        exact_total([torch.tensor([256.0], dtype=torch.bfloat16), torch.tensor([1.0], dtype=torch.bfloat16)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=dtype_name)
def test_a_float_total_that_fp64_rounds_away_is_refused_too(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"not representable in {dtype_name(dtype)}"):
        exact_total([torch.tensor([1.0], dtype=dtype), torch.tensor([2.0**-60], dtype=dtype)])
