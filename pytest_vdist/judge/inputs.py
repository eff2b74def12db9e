"""Inputs of collectives: pure functions of (seed, rank, world size, shape, dtype).

Any process makes any rank's input alone, so no input travels. All results are contiguous CPU tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from .formats import IntegerFormat, NumberFormat, bit_view, float_format_of, format_of, integer_of_size
from .hashing import BLOCK, hash_key, hash_words, high_bits, related_words

BlockValues = Callable[[int, int], torch.Tensor]

# By position, exact sums have this many exponents e, from -p up; all their magnitudes are normal numbers.
_SCALES = 4
# A rank's mean share of the budget of one element is at least this much, so that the ranks' shares differ.
_SMALLEST_SHARE = 4
# Four summed uniforms of 16 bits: standard deviation sqrt((65536^2 - 1) / 3), largest magnitude 2 sqrt(3).
_FIELD_BITS = 16
_UNIFORM_DEVIATION = math.sqrt((4**_FIELD_BITS - 1) / 3)
_BOUNDED_MAGNITUDE = 4.0


def exact_sum_input(
    shape: Sequence[int], dtype: torch.dtype, *, rank: int, world_size: int, seed: int
) -> torch.Tensor:
    """Make one rank's addends of a sum that is exact in every order and association.

    Floats are m * 2^e with integers m of either sign, e common to all ranks at one position, and the sum of
    |m| over the ranks at most 2^p for a precision of p bits. Integers never overflow. Where too many
    ranks share that budget, some are zero at each position, and they take turns.
    """
    _check_rank(rank, world_size)
    found = format_of(dtype)
    key = hash_key("sum", seed)

    def block(start: int, count: int) -> torch.Tensor:
        positions = hash_words(key, count, start)
        if isinstance(found, IntegerFormat):
            return _integer_shares(found, positions, rank, world_size)
        return _float_shares(found, positions, rank, world_size)

    return _fill(shape, dtype, block)


def one_hot_input(
    shape: Sequence[int], dtype: torch.dtype, *, rank: int, world_size: int, seed: int, hot_rank: int
) -> torch.Tensor:
    """Make zeros but on `hot_rank`, which holds full-width odd significands over all normal exponents.

    So a narrower wire format, a lossy cast or one wrong bit of one rank changes the sum. Integers are the
    extreme values and full-width ones. Take every rank as `hot_rank` in turn.
    """
    _check_rank(rank, world_size)
    _check_rank(hot_rank, world_size)
    found = format_of(dtype)
    if rank != hot_rank:
        return torch.zeros(tuple(shape), dtype=dtype)
    key = hash_key("one-hot", seed, hot_rank)

    def block(start: int, count: int) -> torch.Tensor:
        words = hash_words(key, count, start)
        return (
            _wide_integers(found, words) if isinstance(found, IntegerFormat) else _wide_floats(found, words)
        )

    return _fill(shape, dtype, block)


def movement_input(shape: Sequence[int], dtype: torch.dtype, *, rank: int, seed: int) -> torch.Tensor:
    """Make arbitrary bit patterns of any dtype, for operations that only move data; bool holds 0 and 1 only.

    Floats of 16 bits and more hold NaNs with payloads, infinities, subnormals and zeros of both signs much
    more often than by chance.
    """
    itemsize = torch.empty((), dtype=dtype).element_size()
    size = math.prod(shape) * itemsize
    words = hash_words(hash_key("movement", seed, rank), -(-size // 8))
    patterns = words.view(torch.uint8)[:size].clone()
    if dtype == torch.bool:
        patterns &= 1
    elements = patterns.view(dtype)
    if dtype.is_floating_point and itemsize > 1:
        _sow_special_values(elements, float_format_of(dtype))
    elif dtype.is_complex:
        _sow_special_values(torch.view_as_real(elements), float_format_of(dtype.to_real()))
    return elements.reshape(tuple(shape))


def bounded_input(
    shape: Sequence[int], dtype: torch.dtype, *, rank: int, world_size: int, seed: int
) -> torch.Tensor:
    """Make floats of mean 0 and, where the format's range allows, variance 1, whose sums round.

    Over `world_size` ranks the sum of magnitudes stays within half of the largest finite number. The
    distribution is that of four added uniforms, close to the normal one, because logarithms differ between
    mathematical libraries. Raises TypeError for integers: their sums are exact.
    """
    _check_rank(rank, world_size)
    found = float_format_of(dtype)
    halvings = max(0, math.ceil(math.log2(world_size * _BOUNDED_MAGNITUDE / (found.max / 2))))
    scale = math.ldexp(1.0 / _UNIFORM_DEVIATION, -halvings)
    key = hash_key("bounded", seed, rank)

    def block(start: int, count: int) -> torch.Tensor:
        fields = hash_words(key, count, start).view(torch.uint8).view(torch.uint16).to(torch.int32)
        centred = fields.reshape(count, 4).sum(dim=1) - 2 * ((1 << _FIELD_BITS) - 1)
        return centred.to(torch.float64) * scale

    return _fill(shape, dtype, block)


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not in a group of {world_size} ranks")


def _fill(shape: Sequence[int], dtype: torch.dtype, block_values: BlockValues) -> torch.Tensor:
    count = math.prod(shape)
    values = torch.empty(count, dtype=dtype)
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        values[start:stop] = block_values(start, stop - start).to(dtype)
    return values.reshape(tuple(shape))


def _shares_of(positions: torch.Tensor, rank: int, world_size: int, parties: int) -> torch.Tensor | int:
    """Return the share of `rank`, by position where there are fewer parties than ranks: those take turns."""
    if world_size <= parties:
        return rank
    shares = (high_bits(positions, 32) * world_size >> 32).add_(rank)
    return shares.sub_((shares >= world_size).to(torch.int64) * world_size)


def _signed_by(words: torch.Tensor, magnitudes: torch.Tensor) -> torch.Tensor:
    return magnitudes * (1 - 2 * (words & 1))


def _float_shares(found: NumberFormat, positions: torch.Tensor, rank: int, world_size: int) -> torch.Tensor:
    """Deal out 2^p: a share is a part of fixed size, plus a random end, less a random start.

    One share's end is the next one's start, so the randomness cancels in the total, and every rank needs no
    other rank's share.
    """
    parties = max(2, min(world_size, (1 << found.precision) // _SMALLEST_SHARE))
    part = (1 << found.precision) // parties
    jitter_bits = part.bit_length() - 1
    shares = _shares_of(positions, rank, world_size, parties)
    starts = related_words(positions, shares)
    ends = related_words(positions, (shares + 1) * (shares + 1 < parties))
    magnitudes = part + high_bits(ends, jitter_bits) - high_bits(starts, jitter_bits)
    magnitudes *= shares < parties
    scaled = _signed_by(starts, magnitudes) << (positions & (_SCALES - 1))
    return scaled.to(torch.float64) * math.ldexp(1.0, -found.precision)


def _integer_shares(
    found: IntegerFormat, positions: torch.Tensor, rank: int, world_size: int
) -> torch.Tensor:
    parties = max(1, min(world_size, found.max // _SMALLEST_SHARE))
    magnitude_bits = min(63, (found.max // parties + 1).bit_length() - 1)
    shares = _shares_of(positions, rank, world_size, parties)
    words = related_words(positions, shares)
    magnitudes = high_bits(words, magnitude_bits) * (shares < parties)
    return _signed_by(words, magnitudes) if found.signed else magnitudes


def _wide_integers(found: IntegerFormat, words: torch.Tensor) -> torch.Tensor:
    if found.bits == 1:
        return words & 1
    largest = torch.full_like(words, found.max if found.signed else -1)
    smallest = torch.full_like(words, found.min)
    extremes = torch.where((words & 2) == 0, smallest, largest)
    return torch.where((words & 1) == 0, extremes, words >> (64 - found.bits) if found.bits < 64 else words)


def _wide_floats(found: NumberFormat, words: torch.Tensor) -> torch.Tensor:
    # The largest exponent is left out: not all of its significands are numbers in every format.
    exponents = found.e_max - found.e_min
    fields = 1 + (high_bits(words, 12) * exponents >> 12)
    odd_significands = (words >> 1).bitwise_and_((1 << found.mantissa_bits) - 1) | 1
    patterns = ((words & 1) << (found.bits - 1)) | (fields << found.mantissa_bits) | odd_significands
    return patterns.to(integer_of_size(found.bits // 8)).view(found.dtype)


def _sow_special_values(elements: torch.Tensor, found: NumberFormat) -> None:
    """Turn an eighth of the elements into NaNs and infinities, an eighth into subnormals, 1/64 into zeros."""
    flat = bit_view(elements).reshape(-1)
    for start in range(0, flat.numel(), BLOCK):
        patterns = flat[start : start + BLOCK]
        kinds = patterns & 63
        patterns |= (kinds & 7 == 0) * found.exponent_mask
        patterns &= ~((kinds & 7 == 1) * found.exponent_mask)
        patterns &= ~((kinds == 2) * ((1 << (found.bits - 1)) - 1))
