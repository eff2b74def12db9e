"""Sums without rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

from .formats import IntegerFormat, dtype_name, float_format_of, format_of


@dataclass(frozen=True, eq=False)
class ExactSum:
    """The real number `high + low` for every element, in two fp64 tensors with |low| <= ulp(high) / 2.

    It is the sum itself where that has at most 106 significant bits, else the sum rounded to as many.
    """

    high: torch.Tensor
    low: torch.Tensor


def exact_sum(addends: Sequence[torch.Tensor]) -> ExactSum:
    """Add tensors of one shape and one floating-point dtype.

    Raises ValueError for addends that are not finite or of different shapes or dtypes.
    """
    wide = [_finite_fp64(each) for each in _alike(addends)]
    high = wide[0]
    low = torch.zeros_like(high)
    inexact = torch.zeros_like(high, dtype=torch.bool)
    for each in wide[1:]:
        high, error = _two_sum(high, each)
        low, lost = _two_sum(low, error)
        inexact |= lost != 0
    high, low = _two_sum(high, low)
    if not high.isfinite().all():
        raise ValueError("the sum overflows fp64")
    # The sum of the rounding errors was itself rounded: rare, and left to rational numbers.
    for index in inexact.nonzero().tolist():
        where = tuple(index)
        total = sum((Fraction(each[where].item()) for each in wide), Fraction(0))
        high[where] = nearest = float(total)
        low[where] = float(total - Fraction(nearest))
    return ExactSum(high, low)


def exact_total(addends: Sequence[torch.Tensor]) -> torch.Tensor:
    """Add tensors in their dtype without rounding: integers modulo 2^bits, bool by "or".

    Raises ValueError if a floating-point sum is not representable in the dtype.
    """
    first = _alike(addends)[0]
    if isinstance(format_of(first.dtype), IntegerFormat):
        return _integer_total(addends)
    total = exact_sum(addends)
    rounded = total.high.to(first.dtype)
    if total.low.any() or not torch.equal(rounded.to(torch.float64), total.high):
        raise ValueError(
            f"the sum of these tensors is not representable in {dtype_name(first.dtype)}, so no single value "
            "is right: make inputs by exact_sum_input or one_hot_input, or judge by assert_bounded"
        )
    return rounded


def _alike(addends: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    kinds = {(tuple(each.shape), each.dtype) for each in addends}
    if len(kinds) != 1:
        raise ValueError(f"addends must have one shape and one dtype, got {sorted(map(str, kinds))}")
    return addends


def _finite_fp64(tensor: torch.Tensor) -> torch.Tensor:
    float_format_of(tensor.dtype)
    wide = tensor.detach().cpu().to(torch.float64)
    if not wide.isfinite().all():
        raise ValueError("a sum of numbers that are not all finite cannot be judged by its value")
    return wide


def _two_sum(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a + b rounded, and the rounding error exactly (Knuth, TAOCP 2, section 4.2.2, theorem B)."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def _integer_total(addends: Sequence[torch.Tensor]) -> torch.Tensor:
    dtype = addends[0].dtype
    if dtype == torch.bool:
        return torch.stack([each.detach().cpu() for each in addends]).any(dim=0)
    total = torch.zeros(addends[0].shape, dtype=torch.int64)
    for each in addends:
        # int64 wraps modulo 2^64, which keeps the low bits right; uint64 enters and leaves by its bits.
        plain = each.detach().cpu()
        total += plain.view(torch.int64) if dtype == torch.uint64 else plain.to(torch.int64)
    return total.view(dtype) if dtype.itemsize == 8 else total.to(dtype)
