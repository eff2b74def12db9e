"""Random-looking words that are equal in every process and under every version of torch.

The streams of `torch.Generator` are not promised to stay the same between versions and devices. The mixing
function is that of SplitMix64 (https://doi.org/10.1145/2714064.2660195): a word needs only its position.
"""

from __future__ import annotations

import torch

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31

BLOCK = 1 << 15
"""Words that are handled at once: few enough to stay in a core's cache."""


def signed(word: int) -> int:
    """Return the int64 with the same 64 bits, as torch holds them."""
    word &= _MASK
    return word - (1 << 64) if word >> 63 else word


def high_bits(words: torch.Tensor, count: int) -> torch.Tensor:
    """Return the `count` (1 to 63) highest bits of each word, as a number from 0 to 2^count - 1."""
    return (words >> (64 - count)).bitwise_and_((1 << count) - 1)


def mix_(words: torch.Tensor) -> torch.Tensor:
    """Mix int64 words in place; products wrap modulo 2^64. Returns `words`."""
    for shift, factor in _ROUNDS:
        words.bitwise_xor_(high_bits(words, 64 - shift)).mul_(signed(factor))
    return words.bitwise_xor_(high_bits(words, 64 - _LAST_SHIFT))


def _mix_int(word: int) -> int:
    for shift, factor in _ROUNDS:
        word = ((word ^ (word >> shift)) * factor) & _MASK
    return word ^ (word >> _LAST_SHIFT)


def hash_key(purpose: str, *numbers: int) -> int:
    """Make the 64-bit key of a stream. Numbers of any size and sign take part with all their bits."""
    key = 0
    for number in (int.from_bytes(purpose.encode()), *numbers):
        sign, rest = int(number < 0), abs(number)
        for limb in (sign, *(rest >> shift & _MASK for shift in range(0, max(1, rest.bit_length()), 64))):
            key = _mix_int((key + _STEP) & _MASK ^ limb)
    return key


def related_words(words: torch.Tensor, offset: torch.Tensor | int) -> torch.Tensor:
    """Make new words that depend on `words` and on a small number, one for each word or one for all."""
    step = offset * signed(_STEP) if isinstance(offset, torch.Tensor) else signed(offset * _STEP)
    return mix_(words + step)


def hash_words(key: int, count: int, start: int = 0) -> torch.Tensor:
    """Return words `start` to `start + count - 1` of the stream `key`, as a 1-D int64 tensor."""
    words = torch.empty(count, dtype=torch.int64)
    steps = torch.arange(min(count, BLOCK)).mul_(signed(_STEP))
    for first in range(0, count, BLOCK):
        block = words[first : first + BLOCK]
        torch.add(steps[: block.numel()], signed(key + (start + first) * _STEP), out=block)
        mix_(block)
    return words
