"""Tensors that lie inside poisoned memory, in every layout that a caller may use."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .formats import bit_view, contiguous_copy, same_bits

POISON = 0xA5
_GUARD_BYTES = 256

Strides = tuple[int, ...]


def _dense(shape: Sequence[int], order: Sequence[int]) -> Strides:
    """Strides without gaps, where `order` names the dimensions from the slowest to the fastest."""
    strides = [0] * len(shape)
    step = 1
    for dim in reversed(order):
        strides[dim] = step
        step *= max(1, shape[dim])
    return tuple(strides)


def _contiguous(shape: Sequence[int]) -> Strides:
    return _dense(shape, range(len(shape)))


def _transposed(shape: Sequence[int]) -> Strides:
    *first, row, column = range(len(shape))
    return _dense(shape, [*first, column, row])


def _permuted(shape: Sequence[int]) -> Strides:
    batch, channel, *rest = range(len(shape))
    return _dense(shape, [batch, *rest, channel])


def _strided(shape: Sequence[int]) -> Strides:
    return tuple(2 * stride for stride in _contiguous(shape))


def _expanded(shape: Sequence[int]) -> Strides:
    return (0, *_contiguous(shape)[1:])


@dataclass(frozen=True)
class _Layout:
    strides: Callable[[Sequence[int]], Strides]
    least_dims: int = 0
    offset: int = 0


_LAYOUTS = {
    "contiguous": _Layout(_contiguous),
    "offset": _Layout(_contiguous, offset=1),
    "transposed": _Layout(_transposed, least_dims=2),
    "permuted": _Layout(_permuted, least_dims=3),
    "strided": _Layout(_strided, least_dims=1),
    "expanded": _Layout(_expanded, least_dims=1),
}
LAYOUTS = tuple(_LAYOUTS)
"""Names of layouts: offset starts one element after an aligned address; transposed is dense with the last two
dimensions swapped; permuted is dense with dimension 1 the fastest, as in channels-last images; strided
takes every second element; expanded has stride 0 in dimension 0."""


@dataclass(frozen=True, eq=False)
class GuardedTensor:
    """A view with known values inside a poisoned buffer.

    `tensor` goes to the operation; `values` is a contiguous CPU copy of what it held; `memory` is the whole
    buffer as bytes.
    """

    tensor: torch.Tensor
    values: torch.Tensor
    memory: torch.Tensor
    layout: str

    def values_intact(self) -> bool:
        """Whether the view still holds the values it was made with, bit by bit."""
        return same_bits(self.tensor, self.values)

    def canaries_intact(self) -> bool:
        """Whether no byte outside the view was written: before, after or in its gaps."""
        outside = ~_covered_bytes(self.tensor, self.memory.data_ptr(), self.memory.numel())
        return bool((self.memory.cpu()[outside] == POISON).all())


def layout_fits(layout: str, shape: Sequence[int]) -> bool:
    """Whether a tensor of `shape` has dimensions enough for the layout.

    transposed needs 2, permuted 3, strided and expanded 1. Raises ValueError for an unknown layout.
    """
    return len(shape) >= _layout(layout).least_dims


def fit_values(values: torch.Tensor, layout: str) -> torch.Tensor:
    """Return values that the layout can hold: for "expanded", the first entry of dimension 0 repeated."""
    if layout != "expanded" or values.shape[0] < 2:
        return values
    return contiguous_copy(values[:1].expand_as(values))


def guard(values: torch.Tensor, layout: str, device: torch.device | str = "cpu") -> GuardedTensor:
    """Place `values` on `device` in the layout, with canaries around it and in its gaps.

    Raises ValueError if the shape has too few dimensions for the layout, or if "expanded" is asked for
    values that differ along dimension 0 (see `fit_values`).
    """
    shape = tuple(values.shape)
    if not layout_fits(layout, shape):
        raise ValueError(f"shape {shape} has too few dimensions for the layout {layout!r}")
    kept = contiguous_copy(values).cpu()
    strides = _layout(layout).strides(shape)
    itemsize = values.element_size()
    start = _GUARD_BYTES // itemsize + _layout(layout).offset
    memory = poisoned(((start + _extent(shape, strides)) * itemsize + _GUARD_BYTES,), torch.uint8, device)
    tensor = memory.view(values.dtype).as_strided(shape, strides, start)
    _copy_bits(tensor[:1] if layout == "expanded" else tensor, kept[:1] if layout == "expanded" else kept)
    guarded = GuardedTensor(tensor, kept, memory, layout)
    if not guarded.values_intact():
        raise ValueError("values that differ along dimension 0 do not fit an expanded tensor: use fit_values")
    return guarded


def poisoned(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.Tensor:
    """Make a contiguous tensor with 0xA5 in every byte, as an output that must be overwritten."""
    size = math.prod(shape) * dtype.itemsize
    return torch.full((size,), POISON, dtype=torch.uint8, device=device).view(dtype).reshape(tuple(shape))


def aliases(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors share any byte of memory; interleaved views without a common element do not."""
    if a.device != b.device or not a.numel() or not b.numel():
        return False
    first = max(a.data_ptr(), b.data_ptr())
    last = min(a.data_ptr() + _byte_extent(a), b.data_ptr() + _byte_extent(b))
    if first >= last:
        return False
    if a.is_contiguous() and b.is_contiguous():
        return True
    return bool((_covered_bytes(a, first, last - first) & _covered_bytes(b, first, last - first)).any())


def _layout(name: str) -> _Layout:
    if name not in _LAYOUTS:
        raise ValueError(f"unknown layout {name!r}; known are {', '.join(_LAYOUTS)}")
    return _LAYOUTS[name]


def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements from the first to one past the last."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _byte_extent(tensor: torch.Tensor) -> int:
    return _extent(tensor.shape, tensor.stride()) * tensor.element_size()


def _copy_bits(target: torch.Tensor, source: torch.Tensor) -> None:
    bit_view(target).copy_(bit_view(source))


def _covered_bytes(tensor: torch.Tensor, start: int, count: int) -> torch.Tensor:
    """Which of the `count` bytes from the address `start` belong to an element of the tensor."""
    if not tensor.numel():
        return torch.zeros(count, dtype=torch.bool)
    itemsize = tensor.element_size()
    extent = _byte_extent(tensor)
    own = torch.zeros(extent, dtype=torch.bool)
    # torch refuses to write where elements share memory: one entry stands for all of an expanded dimension.
    sizes = (size if stride else 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    shape = (*sizes, itemsize)
    strides = (*(stride * itemsize for stride in tensor.stride()), 1)
    own.as_strided(shape, strides).fill_(True)
    covered = torch.zeros(count, dtype=torch.bool)
    offset = tensor.data_ptr() - start
    low, high = max(0, offset), min(count, offset + extent)
    covered[low:high] = own[low - offset : high - offset]
    return covered
