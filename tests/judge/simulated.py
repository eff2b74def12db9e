"""Reductions as an implementation may do them, on the CPU, with a rounding of every partial sum."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

FLOATS = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)
INTEGERS = (
    torch.uint8,
    torch.int8,
    torch.uint16,
    torch.int16,
    torch.uint32,
    torch.int32,
    torch.uint64,
    torch.int64,
)


def add(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Add and round to `dtype`; rounding to fp64 before is harmless for formats of at most 24 bits."""
    return (a.to(torch.float64) + b.to(torch.float64)).to(dtype)


def in_order(addends: Sequence[torch.Tensor], accumulator: torch.dtype) -> torch.Tensor:
    """Sum as a ring or a fused kernel does: one partial sum that meets every rank's addend in turn."""
    dtype = addends[0].dtype
    total = addends[0].to(accumulator)
    for each in addends[1:]:
        total = add(total, each, accumulator)
    return total.to(dtype)


def tree(addends: Sequence[torch.Tensor], accumulator: torch.dtype) -> torch.Tensor:
    """Sum in a balanced tree."""
    level = [each.to(accumulator) for each in addends]
    while len(level) > 1:
        pairs = [add(level[i], level[i + 1], accumulator) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[2 * len(pairs) :]
    return level[0].to(addends[0].dtype)


def any_tree(
    addends: Sequence[torch.Tensor], accumulator: torch.dtype, choice: random.Random
) -> torch.Tensor:
    """Sum in a random order and association."""
    level = [each.to(accumulator) for each in addends]
    while len(level) > 1:
        a = level.pop(choice.randrange(len(level)))
        b = level.pop(choice.randrange(len(level)))
        level.append(add(a, b, accumulator))
    return level[0].to(addends[0].dtype)
