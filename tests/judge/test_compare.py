from __future__ import annotations

import math

import pytest
import torch

from pytest_vdist.judge import (
    Mismatch,
    compare_bounded,
    compare_exact,
    compare_ranks,
    dtype_name,
    exact_sum,
    movement_input,
)

from .simulated import FLOATS, INTEGERS

BF16 = torch.bfloat16


def mismatch_of(found: float | Mismatch | None) -> Mismatch:
    assert isinstance(found, Mismatch)
    return found


@pytest.mark.parametrize(
    "dtype", [*FLOATS, *INTEGERS, torch.bool, torch.complex64, torch.complex128], ids=dtype_name
)
def test_one_wrong_bit_is_found_in_every_dtype(dtype: torch.dtype) -> None:
    want = movement_input((3, 4), dtype, rank=0, seed=1)
    assert compare_exact(want.clone(), want) is None
    got = want.clone()
    got.view(torch.uint8)[2, 1 * dtype.itemsize] ^= 1
    found = mismatch_of(compare_exact(got, want, rank=5))
    assert (found.rank, found.index, found.differing, found.total) == (5, (2, 1), 1, 12)
    assert found.got.bits != str(found.want)


def test_a_mismatch_reads_in_decimal_and_bits() -> None:
    got = torch.tensor([[1.0, 3.5], [0.0, 0.0]], dtype=BF16)
    want = torch.tensor([[1.0, 4.0], [0.0, 9.0]], dtype=BF16)
    assert str(compare_exact(got, want)) == (
        "index (0, 1): got 3.5 (0x4060), want 4.0 (0x4080); 2 of 4 elements differ"
    )


@pytest.mark.parametrize(
    ("got", "want", "text"),
    [
        (
            torch.tensor(-1, dtype=torch.int8),
            torch.tensor(1, dtype=torch.int8),
            "got -1 (0xff), want 1 (0x01)",
        ),
        (torch.tensor(True), torch.tensor(False), "got True (0x01), want False (0x00)"),
        (torch.tensor(math.nan), torch.tensor(math.inf), "got nan (0x7fc00000), want inf (0x7f800000)"),
        (
            torch.tensor(1 + 2j),
            torch.tensor(0j),
            "got (1+2j) (0x400000003f800000), want 0j (0x0000000000000000)",
        ),
        (
            torch.tensor(448.0).to(torch.float8_e4m3fn),
            torch.tensor(1.0).to(torch.float8_e4m3fn),
            "got 448.0 (0x7e), want 1.0 (0x38)",
        ),
    ],
    ids=["int8", "bool", "fp32", "complex64", "e4m3fn"],
)
def test_numbers_of_every_kind_are_readable(got: torch.Tensor, want: torch.Tensor, text: str) -> None:
    assert str(compare_exact(got, want)) == f"index (): {text}; 1 of 1 elements differ"


def test_zeros_of_different_sign_are_equal_on_request_only() -> None:
    got, want = torch.tensor([0.0, -0.0]), torch.tensor([-0.0, 0.0])
    assert compare_exact(got, want, zeros_equal=True) is None
    assert mismatch_of(compare_exact(got, want)).differing == 2


def test_nan_payloads_count_also_where_zeros_are_equal() -> None:
    got = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)
    assert (
        mismatch_of(compare_exact(got, torch.tensor([math.nan]), zeros_equal=True)).got.bits == "0x7fc00001"
    )


def test_empty_tensors_are_equal() -> None:
    assert compare_exact(torch.zeros(0, 3), torch.zeros(0, 3)) is None
    nothing = exact_sum([torch.zeros(0, 3)])
    assert compare_bounded(torch.zeros(0, 3), nothing, nothing.high) == 0.0


def test_tensors_of_different_form_cannot_be_compared() -> None:
    with pytest.raises(
        ValueError, match=r"torch\.float32 of shape \(2,\) with torch\.float32 of shape \(1, 2\)"
    ):
        compare_exact(torch.zeros(2), torch.zeros(1, 2))


def test_the_margin_is_the_largest_error_in_units_of_the_bound() -> None:
    want = exact_sum([torch.tensor([1.0, 2.0])])
    bound = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert compare_bounded(torch.tensor([1.25, 2.125]), want, bound) == 0.5
    assert compare_bounded(torch.tensor([1.5, 2.0]), want, bound) == 1.0


def test_a_result_out_of_bounds_names_the_worst_element() -> None:
    want = exact_sum([torch.tensor([[1.0, 2.0, 3.0]])])
    bound = torch.full((1, 3), 0.5, dtype=torch.float64)
    found = mismatch_of(compare_bounded(torch.tensor([[1.75, 2.0, 4.0]]), want, bound, rank=3))
    assert (found.rank, found.index, found.ratio, found.differing) == (3, (0, 2), 2.0, 2)
    assert str(found) == (
        "index (0, 2): got 4.0 (0x40800000), want 3.0 within 0.5; "
        "the error is 2 times the bound; 2 of 3 elements are out of bounds"
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_result_that_is_not_finite_is_infinitely_wrong(bad: float) -> None:
    found = compare_bounded(
        torch.tensor([1.0, bad]),
        exact_sum([torch.ones(2)]),
        torch.tensor([1e300, 1e300], dtype=torch.float64),
    )
    assert mismatch_of(found).ratio == math.inf
    assert mismatch_of(found).index == (1,)


def test_a_bound_of_zero_takes_the_exact_result_only() -> None:
    want, bound = exact_sum([torch.ones(1)]), torch.zeros(1, dtype=torch.float64)
    assert compare_bounded(torch.ones(1), want, bound) == 0.0
    assert mismatch_of(compare_bounded(torch.full((1,), 1.5), want, bound)).ratio == math.inf


def test_fp64_errors_below_the_last_bit_of_the_sum_are_measured() -> None:
    tiny = 2.0**-60
    want = exact_sum([torch.tensor([1.0], dtype=torch.float64), torch.tensor([tiny], dtype=torch.float64)])
    bound = torch.tensor([2.0**-58], dtype=torch.float64)
    assert compare_bounded(torch.ones(1, dtype=torch.float64), want, bound) == 0.25


def test_every_rank_that_differs_from_rank_0_is_returned() -> None:
    same, other = torch.tensor([1.0, 2.0]), torch.tensor([1.0, -2.0])
    assert compare_ranks([same, same.clone(), same]) == []
    assert [found.rank for found in compare_ranks([same, other, same, other])] == [1, 3]
    assert [found.rank for found in compare_ranks([torch.tensor(0.0), torch.tensor(-0.0)])] == [1]
