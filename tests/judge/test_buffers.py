from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_vdist.judge import (
    LAYOUTS,
    aliases,
    dtype_name,
    fit_values,
    guard,
    layout_fits,
    movement_input,
    poisoned,
    raw_bytes,
    same_bits,
)

from .simulated import FLOATS, INTEGERS

SHAPE = (2, 3, 4)
WRITABLE = [layout for layout in LAYOUTS if layout != "expanded"]


def values_for(layout: str, shape: Sequence[int] = SHAPE, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return fit_values(movement_input(shape, dtype, rank=0, seed=1), layout)


@settings(max_examples=60, deadline=None)
@given(
    layout=st.sampled_from(LAYOUTS),
    shape=st.lists(st.integers(0, 4), max_size=4),
    dtype=st.sampled_from([*FLOATS, *INTEGERS, torch.bool, torch.complex64, torch.complex128]),
)
def test_the_view_holds_the_values_and_all_is_intact(
    layout: str, shape: list[int], dtype: torch.dtype
) -> None:
    if not layout_fits(layout, shape):
        with pytest.raises(ValueError, match="too few dimensions for the layout"):
            guard(movement_input(shape, dtype, rank=0, seed=1), layout)
        return
    values = values_for(layout, shape, dtype)
    guarded = guard(values, layout)
    assert same_bits(guarded.tensor, values)
    assert guarded.values_intact()
    assert guarded.canaries_intact()


def test_layouts_have_the_strides_they_are_named_for() -> None:
    strides = {layout: guard(values_for(layout), layout).tensor.stride() for layout in LAYOUTS}
    assert strides == {
        "contiguous": (12, 4, 1),
        "offset": (12, 4, 1),
        "transposed": (12, 1, 3),
        "permuted": (12, 1, 3),
        "strided": (24, 8, 2),
        "expanded": (0, 4, 1),
    }
    assert guard(values_for("permuted", (2, 3, 4, 5)), "permuted").tensor.stride() == (60, 1, 15, 3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64], ids=dtype_name)
def test_only_the_offset_layout_is_not_aligned_to_16_bytes(dtype: torch.dtype) -> None:
    for layout in LAYOUTS:
        address = guard(values_for(layout, dtype=dtype), layout).tensor.data_ptr()
        assert (address % 16 != 0) == (layout == "offset")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_write_one_element_before_or_after_is_seen(layout: str) -> None:
    for step in (-1, 1):
        guarded = guard(values_for(layout), layout)
        tensor = guarded.tensor
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        place = tensor.storage_offset() + (-1 if step < 0 else last + 1)
        tensor.as_strided((1,), (1,), place).fill_(7.0)
        assert not guarded.canaries_intact()
        assert guarded.values_intact()


def test_a_write_into_a_gap_is_seen() -> None:
    guarded = guard(values_for("strided"), "strided")
    guarded.tensor.as_strided((1,), (1,), guarded.tensor.storage_offset() + 7).fill_(7.0)
    assert not guarded.canaries_intact()
    assert guarded.values_intact()


@pytest.mark.parametrize("layout", WRITABLE)
def test_a_write_through_the_view_changes_the_values_only(layout: str) -> None:
    guarded = guard(values_for(layout), layout)
    guarded.tensor.add_(1.0)
    assert not guarded.values_intact()
    assert guarded.canaries_intact()


def test_values_that_differ_do_not_fit_an_expanded_tensor() -> None:
    with pytest.raises(
        ValueError, match="differ along dimension 0 do not fit an expanded tensor: use fit_values"
    ):
        guard(torch.tensor([1.0, 2.0]), "expanded")


def test_fitting_values_changes_nothing_for_other_layouts() -> None:
    values = torch.arange(6.0).reshape(3, 2)
    assert fit_values(values, "strided") is values
    assert fit_values(values, "expanded").tolist() == [[0.0, 1.0]] * 3


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown layout 'blocked'; known are contiguous, offset"):
        layout_fits("blocked", (2,))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.bool, torch.int64], ids=dtype_name)
def test_poisoned_outputs_hold_the_pattern_in_every_byte(dtype: torch.dtype) -> None:
    output = poisoned((3, 2), dtype)
    assert output.shape == (3, 2)
    assert output.dtype == dtype
    assert output.is_contiguous()
    assert set(raw_bytes(output).tolist()) == {0xA5}
    assert poisoned((0, 2), dtype).shape == (0, 2)
    assert poisoned((), dtype).shape == ()


def test_aliases_finds_shared_bytes_only() -> None:
    memory = torch.zeros(16)
    assert aliases(memory, memory[3:5])
    assert aliases(memory, memory.view(torch.uint8)[17:18])
    assert aliases(memory[::2], memory[4:5])
    assert aliases(memory.view(4, 4).t(), memory)
    assert aliases(memory[:1].expand(4), memory)
    assert not aliases(memory[:8], memory[8:])
    assert not aliases(memory[::2], memory[1::2])
    assert not aliases(memory, memory.clone())
    assert not aliases(memory, memory[:0])
