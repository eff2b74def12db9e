"""What ranks put into reductions, and what must come out. Pure functions of tensors on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

from pytest_vdist.judge import (
    ExactSum,
    all_reduce,
    bounded_input,
    exact_sum_input,
    format_of,
    movement_input,
    sum_bound,
)

_ELEMENTWISE: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "min": torch.minimum,
    "max": torch.maximum,
    "product": torch.mul,
    "band": torch.bitwise_and,
    "bor": torch.bitwise_or,
    "bxor": torch.bitwise_xor,
}
REDUCTIONS = ("sum", "avg", *_ELEMENTWISE)
BITWISE = ("band", "bor", "bxor")


def has_reduction(dtype: torch.dtype, reduction: str) -> bool:
    """Tell whether the reduction means something for the dtype: bits of integers, averages of floats."""
    if reduction in BITWISE:
        return not dtype.is_floating_point
    return reduction != "avg" or dtype.is_floating_point


def addend(
    shape: Sequence[int], dtype: torch.dtype, reduction: str, *, rank: int, ranks: int, seed: int
) -> torch.Tensor:
    """Make one rank's part of a reduction whose result is exact in every order; only averages may round.

    Products are of powers of two of either sign; minima and maxima of finite floats, or of any integers.
    """
    if reduction in {"sum", "avg"}:
        return exact_sum_input(shape, dtype, rank=rank, world_size=ranks, seed=seed)
    if reduction == "product":
        bits = movement_input(shape, torch.uint8, rank=rank, seed=seed).to(torch.int32)
        signs = 1 - 2 * (bits & 1) if dtype.is_signed else torch.ones_like(bits)
        return (signs * (1 + (bits >> 1 & 1))).to(dtype)
    if dtype.is_floating_point:
        return bounded_input(shape, dtype, rank=rank, world_size=ranks, seed=seed)
    return movement_input(shape, dtype, rank=rank, seed=seed)


def reduced(addends: Sequence[torch.Tensor], reduction: str) -> torch.Tensor:
    """Return what the addends give, exactly. Averages are not exact: see `average`."""
    if reduction == "sum":
        return all_reduce(addends)[0]
    return functools.reduce(_ELEMENTWISE[reduction], addends)


def average(addends: Sequence[torch.Tensor]) -> tuple[ExactSum, torch.Tensor]:
    """Return the average in fp64, and the largest distance (fp64) at which a result is right.

    That is the bound of a sum, and two roundings more for each addend: of the factor 1 / n and of the product
    with it, before or after the addition.
    """
    count, dtype = len(addends), addends[0].dtype
    bound = sum_bound(addends, dtype, "native")
    magnitude = torch.stack([each.to(torch.float64).abs() for each in addends]).sum(dim=0)
    rounding = 2.0 * format_of(dtype).unit_roundoff * magnitude  # type: ignore[union-attr]
    return ExactSum(bound.total.high / count, bound.total.low / count), (bound.limit + rounding) / count
