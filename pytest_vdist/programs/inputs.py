"""The tensors and Python values with which programs begin: any process can make those of any rank."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import torch

from pytest_vdist.judge.formats import IntegerFormat, contiguous_copy, format_of
from pytest_vdist.judge.hashing import hash_key, hash_words, high_bits
from pytest_vdist.judge.inputs import bounded_input, exact_sum_input, movement_input

from .model import Input, Program

SMALL = 3
"""The largest magnitude of "small" inputs: sums of sums of them stay exact in narrow formats too."""
_LARGEST_KEPT = 1 << 13


def input_of(program: Program, number: int, rank: int) -> torch.Tensor:
    """Return input `number` of a program at a global rank, as a contiguous CPU tensor of its own."""
    whole = program.inputs[number]
    made = replace(whole, shape=whole.shape_at(rank, program.world_size), ragged=0)
    make = _kept if math.prod(made.shape) <= _LARGEST_KEPT else _make
    return contiguous_copy(make(made, 1000 * program.seed + number, rank, program.world_size))


def object_of(value: Any, rank: int, repeat: int = 0) -> Any:
    """Return what a global rank sends where a program names `value`: it tells the rank, and which time."""
    return {"rank": rank, "repeat": repeat, "value": value}


def _make(made: Input, seed: int, rank: int, world_size: int) -> torch.Tensor:
    dtype = getattr(torch, made.dtype)
    if made.values == "bits":
        return movement_input(made.shape, dtype, rank=rank, seed=seed)
    if made.values == "wide":
        return exact_sum_input(made.shape, dtype, rank=rank, world_size=world_size, seed=seed)
    if made.values == "rounding":
        return bounded_input(made.shape, dtype, rank=rank, world_size=world_size, seed=seed)
    words = high_bits(hash_words(hash_key("small", seed, rank), math.prod(made.shape)), 32)
    found = format_of(dtype)
    if isinstance(found, IntegerFormat) and not found.signed:
        return (words % (min(SMALL, found.max) + 1)).to(dtype).reshape(made.shape)
    return (words % (2 * SMALL + 1) - SMALL).to(dtype).reshape(made.shape)


_kept = functools.lru_cache(maxsize=4096)(_make)
