from __future__ import annotations

import math

import pytest
import torch

from pytest_vdist.judge import IntegerFormat, NumberFormat, dtype_name, format_of, raw_bytes, same_bits
from tests.judge.simulated import FLOATS, INTEGERS

EVERY_DTYPE = (*FLOATS, *INTEGERS, torch.bool, torch.complex64, torch.complex128)


@pytest.mark.parametrize("dtype", FLOATS, ids=dtype_name)
def test_float_formats_agree_with_torch(dtype: torch.dtype) -> None:
    found, info = format_of(dtype), torch.finfo(dtype)
    assert isinstance(found, NumberFormat)
    assert found.max == info.max
    assert 2 * found.unit_roundoff == info.eps
    assert math.ldexp(1.0, found.e_min) == info.smallest_normal
    assert found.bits == info.bits
    one = torch.ones((), dtype=dtype)
    assert found.exponent_bias << found.mantissa_bits == int.from_bytes(
        bytes(raw_bytes(one).tolist()), "little"
    )


@pytest.mark.parametrize("dtype", FLOATS, ids=dtype_name)
def test_the_smallest_subnormal_has_the_lowest_bit_only(dtype: torch.dtype) -> None:
    found = format_of(dtype)
    assert isinstance(found, NumberFormat)
    lowest = torch.tensor([1] + [0] * (found.bits // 8 - 1), dtype=torch.uint8).view(dtype)
    assert lowest.to(torch.float64).item() == found.smallest_subnormal


@pytest.mark.parametrize("dtype", INTEGERS, ids=dtype_name)
def test_integer_formats_agree_with_torch(dtype: torch.dtype) -> None:
    found, info = format_of(dtype), torch.iinfo(dtype)
    assert isinstance(found, IntegerFormat)
    assert (found.min, found.max, found.bits) == (info.min, info.max, info.bits)


def test_bool_is_one_unsigned_bit() -> None:
    found = format_of(torch.bool)
    assert isinstance(found, IntegerFormat)
    assert (found.min, found.max) == (0, 1)


def test_a_dtype_without_a_format_is_refused_by_name() -> None:
    with pytest.raises(
        TypeError, match=r"no number format is known for torch\.complex64; known are bfloat16, "
    ):
        format_of(torch.complex64)


@pytest.mark.parametrize("dtype", EVERY_DTYPE, ids=dtype_name)
def test_raw_bytes_are_the_elements_in_index_order(dtype: torch.dtype) -> None:
    one = torch.ones((), dtype=dtype)
    pattern = raw_bytes(one)
    matrix = torch.zeros((2, 3), dtype=dtype)
    matrix[0, 1] = 1
    size = pattern.numel()
    flat, transposed = raw_bytes(matrix), raw_bytes(matrix.t())
    assert torch.equal(flat[size : 2 * size], pattern)
    assert torch.equal(transposed[2 * size : 3 * size], pattern)
    assert raw_bytes(matrix[:0]).numel() == 0
    assert flat.numel() == transposed.numel() == 6 * size


def test_raw_bytes_are_a_copy() -> None:
    tensor = torch.zeros(4)
    raw_bytes(tensor).fill_(7)
    assert torch.equal(tensor, torch.zeros(4))


def test_raw_bytes_resolve_conjugates_and_ignore_gradients() -> None:
    number = torch.tensor([1 + 2j], requires_grad=True)
    assert same_bits(number.conj(), torch.tensor([1 - 2j]))


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (torch.tensor([0.0]), torch.tensor([-0.0]), False),
        (torch.tensor([math.nan]), torch.tensor([math.nan]), True),
        (torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32), torch.tensor([math.nan]), False),
        (torch.tensor([1.0]), torch.tensor([[1.0]]), False),
        (torch.tensor([1.0]), torch.tensor([1.0]).to(torch.float64), False),
        (torch.zeros(1), torch.zeros(1, dtype=torch.int32), False),
        (torch.arange(4)[::2], torch.tensor([0, 2]), True),
    ],
    ids=["zeros", "nan", "nan payload", "shape", "dtype", "dtype of the same size", "strides"],
)
def test_same_bits_looks_at_bits_and_shape_and_dtype(a: torch.Tensor, b: torch.Tensor, same: bool) -> None:
    assert same_bits(a, b) is same
