from __future__ import annotations

import math
import random
import subprocess
import sys
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_vdist.judge import (
    IntegerFormat,
    NumberFormat,
    all_reduce,
    bounded_input,
    dtype_name,
    exact_sum_input,
    format_of,
    movement_input,
    one_hot_input,
    raw_bytes,
    same_bits,
)
from tests.judge.simulated import FLOATS, INTEGERS, any_tree, in_order, tree

WORLD_SIZES = (1, 2, 3, 4, 5, 7, 8, 33)


def group_inputs(
    dtype: torch.dtype, world_size: int, *, count: int = 200, seed: int = 1
) -> list[torch.Tensor]:
    return [
        exact_sum_input((count,), dtype, rank=rank, world_size=world_size, seed=seed)
        for rank in range(world_size)
    ]


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(FLOATS),
    world_size=st.integers(1, 40),
    seed=st.integers(),
    choice=st.randoms(use_true_random=False),
)
def test_exact_sums_are_the_same_in_every_order_and_association(
    dtype: torch.dtype, world_size: int, seed: int, choice: random.Random
) -> None:
    inputs = group_inputs(dtype, world_size, count=64, seed=seed)
    want = all_reduce(inputs)[0]
    order = choice.sample(inputs, world_size)
    for got in (in_order(order, dtype), tree(order, dtype), any_tree(inputs, dtype, choice)):
        assert torch.equal(got.to(torch.float64), want.to(torch.float64))


@pytest.mark.parametrize("dtype", FLOATS, ids=dtype_name)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_float_addends_stay_within_the_budget_of_the_format(dtype: torch.dtype, world_size: int) -> None:
    found = format_of(dtype)
    assert isinstance(found, NumberFormat)
    for column in zip(
        *(each.to(torch.float64).tolist() for each in group_inputs(dtype, world_size)), strict=True
    ):
        parts = [Fraction(part) for part in column]
        grain = min(
            Fraction(2) ** (found.e_max - found.precision),
            *(Fraction(1, (abs(part)).denominator) for part in parts if part),
        )
        assert sum(map(abs, parts)) / grain <= 2**found.precision
        assert grain >= Fraction(math.ldexp(1.0, found.e_min))


@pytest.mark.parametrize("dtype", [*INTEGERS, torch.bool], ids=dtype_name)
@pytest.mark.parametrize("world_size", [*WORLD_SIZES, 300])
def test_integer_addends_never_overflow(dtype: torch.dtype, world_size: int) -> None:
    found = format_of(dtype)
    assert isinstance(found, IntegerFormat)
    inputs = [each.tolist() for each in group_inputs(dtype, world_size, count=40)]
    for column in zip(*inputs, strict=True):
        assert sum(abs(int(part)) for part in column) <= found.max
    assert any(map(any, inputs))


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, torch.bool], ids=dtype_name)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_exact_inputs_depend_on_the_rank_and_on_the_position(dtype: torch.dtype, world_size: int) -> None:
    inputs = group_inputs(dtype, world_size)
    assert len({bytes(raw_bytes(each).tolist()) for each in inputs}) == world_size
    assert len(set(raw_bytes(inputs[0]).tolist())) > 1
    assert not same_bits(inputs[0], group_inputs(dtype, world_size, seed=2)[0])


@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.float8_e4m3fn, torch.bool], ids=dtype_name)
def test_ranks_take_turns_where_the_budget_is_too_small(dtype: torch.dtype) -> None:
    inputs = group_inputs(dtype, 8)
    active = torch.stack([each.to(torch.float64) != 0 for each in inputs])
    assert active.sum(dim=0).max() < 8
    assert active.any(dim=1).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=dtype_name)
def test_float_signs_are_mixed(dtype: torch.dtype) -> None:
    values = group_inputs(dtype, 4)[3].to(torch.float64)
    assert values.min() < 0 < values.max()


@pytest.mark.parametrize("dtype", FLOATS, ids=dtype_name)
def test_one_hot_floats_are_odd_full_width_and_normal(dtype: torch.dtype) -> None:
    found = format_of(dtype)
    assert isinstance(found, NumberFormat)
    values = one_hot_input((500,), dtype, rank=2, world_size=4, seed=1, hot_rank=2).to(torch.float64).tolist()
    exponents = set()
    for value in values:
        fraction, exponent = math.frexp(value)
        significand = math.ldexp(abs(fraction), found.precision)
        assert significand == int(significand)
        assert int(significand) % 2 == 1
        assert abs(value) >= math.ldexp(1.0, found.e_min)
        exponents.add(exponent - 1)
    assert min(exponents) < found.e_min + (found.e_max - found.e_min) // 8 + 1
    assert max(exponents) > found.e_max - (found.e_max - found.e_min) // 8 - 2
    assert min(values) < 0 < max(values)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, torch.bool], ids=dtype_name)
def test_one_hot_is_zero_on_every_other_rank(dtype: torch.dtype) -> None:
    for rank in range(4):
        values = one_hot_input((9,), dtype, rank=rank, world_size=4, seed=1, hot_rank=1)
        assert bool(raw_bytes(values).any()) == (rank == 1)


@pytest.mark.parametrize("dtype", INTEGERS, ids=dtype_name)
def test_one_hot_integers_hold_both_extremes(dtype: torch.dtype) -> None:
    found = format_of(dtype)
    assert isinstance(found, IntegerFormat)
    values = one_hot_input((200,), dtype, rank=0, world_size=2, seed=1, hot_rank=0).tolist()
    assert {found.min, found.max} <= set(values)
    assert len(set(values)) > 50


@pytest.mark.parametrize("dtype", FLOATS, ids=dtype_name)
def test_every_bit_of_a_one_hot_addend_counts(dtype: torch.dtype) -> None:
    inputs = [one_hot_input((16,), dtype, rank=r, world_size=4, seed=3, hot_rank=2) for r in range(4)]
    want = all_reduce(inputs)[0]
    inputs[2].view(torch.uint8)[5 * dtype.itemsize] ^= 1
    assert not same_bits(in_order(inputs, dtype), want)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=dtype_name
)
def test_movement_inputs_hold_every_special_value(dtype: torch.dtype) -> None:
    values = movement_input((4000,), dtype, rank=0, seed=1).to(torch.float64)
    bits = movement_input((4000,), dtype, rank=0, seed=1)
    found = format_of(dtype)
    assert isinstance(found, NumberFormat)
    assert values.isnan().any()
    assert ((values.abs() < math.ldexp(1.0, found.e_min)) & (values != 0)).any()
    assert set((1 / values[values == 0]).tolist()) == {math.inf, -math.inf}
    nans = bits[bits.isnan()]
    assert len({bytes(raw_bytes(nan).tolist()) for nan in nans}) > 10


@pytest.mark.parametrize(
    "dtype", [*FLOATS, *INTEGERS, torch.bool, torch.complex64, torch.complex128], ids=dtype_name
)
def test_movement_inputs_differ_by_rank_and_position(dtype: torch.dtype) -> None:
    first, second = (movement_input((3, 40), dtype, rank=rank, seed=1) for rank in range(2))
    assert not same_bits(first, second)
    assert not same_bits(first[0], first[1])
    assert first.dtype == dtype
    assert movement_input((0, 3), dtype, rank=0, seed=1).shape == (0, 3)
    assert movement_input((), dtype, rank=0, seed=1).shape == ()


def test_bool_movement_inputs_are_zero_or_one() -> None:
    values = movement_input((1000,), torch.bool, rank=0, seed=1)
    assert set(raw_bytes(values).tolist()) == {0, 1}


@pytest.mark.parametrize("dtype", FLOATS, ids=dtype_name)
@pytest.mark.parametrize("world_size", [1, 8, 64, 1000])
def test_bounded_inputs_stay_within_half_the_range(dtype: torch.dtype, world_size: int) -> None:
    found = format_of(dtype)
    assert isinstance(found, NumberFormat)
    values = bounded_input((4000,), dtype, rank=0, world_size=world_size, seed=1).to(torch.float64)
    assert values.abs().max() * world_size <= found.max / 2
    assert values.abs().max() > 0


def test_bounded_inputs_look_normal() -> None:
    values = bounded_input((100_000,), torch.float64, rank=1, world_size=4, seed=5)
    assert values.mean().abs() < 0.02
    assert (values.std() - 1).abs() < 0.02
    assert 0.66 < (values.abs() < 1).double().mean() < 0.70


def test_bounded_inputs_refuse_integers() -> None:
    with pytest.raises(TypeError, match=r"torch\.int32 is not a floating-point dtype"):
        bounded_input((1,), torch.int32, rank=0, world_size=1, seed=0)


def test_a_rank_outside_the_group_is_refused() -> None:
    with pytest.raises(ValueError, match="rank 4 is not in a group of 4 ranks"):
        exact_sum_input((1,), torch.float32, rank=4, world_size=4, seed=0)
    with pytest.raises(ValueError, match="rank 9 is not in a group of 4 ranks"):
        one_hot_input((1,), torch.float32, rank=0, world_size=4, seed=0, hot_rank=9)


def test_inputs_do_not_depend_on_the_shape_but_on_the_position() -> None:
    flat = exact_sum_input((70_000,), torch.float32, rank=1, world_size=4, seed=1)
    square = exact_sum_input((7, 10), torch.float32, rank=1, world_size=4, seed=1)
    assert torch.equal(square.reshape(-1), flat[:70])


def test_another_process_makes_the_same_inputs() -> None:
    code = (
        "import torch; torch.manual_seed(3)\n"
        "from pytest_vdist.judge import bounded_input, exact_sum_input, movement_input, raw_bytes\n"
        "x = exact_sum_input((3,), torch.bfloat16, rank=1, world_size=4, seed=7)\n"
        "y = bounded_input((3,), torch.float32, rank=1, world_size=4, seed=7)\n"
        "z = movement_input((3,), torch.float16, rank=1, seed=7)\n"
        "print(bytes(torch.cat([raw_bytes(x), raw_bytes(y), raw_bytes(z)]).tolist()).hex())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    x = exact_sum_input((3,), torch.bfloat16, rank=1, world_size=4, seed=7)
    y = bounded_input((3,), torch.float32, rank=1, world_size=4, seed=7)
    z = movement_input((3,), torch.float16, rank=1, seed=7)
    assert done.stdout.strip() == bytes(torch.cat([raw_bytes(each) for each in (x, y, z)]).tolist()).hex()
