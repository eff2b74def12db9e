"""How far a rounded sum may lie from the exact one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .exact import ExactSum, exact_sum
from .formats import float_format_of

ACCUMULATORS: dict[str, torch.dtype | None] = {
    "native": None,
    "exact": None,
    "fp64": torch.float64,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
"""What an implementation can declare; "native" rounds every partial sum to the dtype of the data."""

# The limit is evaluated in fp64 with about ten roundings: none of them may reject what lies on the limit.
_EVALUATION = 1.0 + math.ldexp(1.0, -48)


@dataclass(frozen=True, eq=False)
class SumBound:
    """The exact sum of every element, and the largest distance (fp64) at which a result is right."""

    total: ExactSum
    limit: torch.Tensor


def accumulator_roundoff(accumulate: str, dtype: torch.dtype) -> float:
    """Return the unit roundoff of one addition. Raises ValueError for an unknown accumulator."""
    if accumulate not in ACCUMULATORS:
        known = ", ".join(ACCUMULATORS)
        raise ValueError(f"unknown accumulator {accumulate!r}; known are {known}")
    if accumulate == "exact":
        return 0.0
    return float_format_of(ACCUMULATORS[accumulate] or dtype).unit_roundoff


def sum_bound(
    inputs: Sequence[torch.Tensor], dtype: torch.dtype, accumulate: str, additions: int | None = None
) -> SumBound:
    """Bound the error of a sum of all `inputs` that is given back in `dtype`.

    `additions` is the number of additions on the longest path from an input to the result: n - 1, which
    holds for every order, unless the implementation declares a tree. The bound is

        additions * u_acc * sum|x| * (1 + u) + u * |sum x| + smallest_subnormal / 2

    without higher-order terms (S. M. Rump, "Error estimation of floating-point summation and dot product",
    2012; C.-P. Jeannerod and S. M. Rump, https://doi.org/10.1137/120894488).
    """
    steps = len(inputs) - 1 if additions is None else additions
    if steps < 0:
        raise ValueError(f"a sum of {len(inputs)} inputs cannot take {steps} additions")
    result = float_format_of(dtype)
    total = exact_sum(inputs)
    magnitude = exact_sum([each.detach().cpu().to(torch.float64).abs() for each in inputs]).high
    accumulated = steps * accumulator_roundoff(accumulate, dtype) * (1.0 + result.unit_roundoff) * magnitude
    rounded = result.unit_roundoff * total.high.abs()
    return SumBound(total, (accumulated + rounded + result.smallest_subnormal / 2) * _EVALUATION)
