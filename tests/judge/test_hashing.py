from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from pytest_vdist.judge.hashing import BLOCK, hash_key, hash_words, high_bits, mix_, related_words, signed

MASK = (1 << 64) - 1


def splitmix64(state: int) -> int:
    word = state & MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def test_the_published_sequence_of_splitmix64_comes_out() -> None:
    # https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64, seed 1234567
    step = 0x9E3779B97F4A7C15
    words = hash_words(1234567 + step, 5)
    assert [word & MASK for word in words.tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(st.lists(st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1), max_size=20))
def test_mixing_wraps_modulo_two_to_the_64(words: list[int]) -> None:
    mixed = mix_(torch.tensor(words, dtype=torch.int64))
    assert mixed.tolist() == [signed(splitmix64(word)) for word in words]


def test_a_part_of_a_stream_is_the_part_of_the_whole() -> None:
    whole = hash_words(99, 2 * BLOCK + 3)
    assert torch.equal(hash_words(99, 8, start=2 * BLOCK - 5), whole[2 * BLOCK - 5 : 2 * BLOCK + 3])


def test_high_bits_are_never_negative() -> None:
    words = torch.tensor([-1, 1 << 62, 0])
    assert high_bits(words, 1).tolist() == [1, 0, 0]
    assert high_bits(words, 63).tolist() == [(1 << 63) - 1, 1 << 61, 0]


@given(st.integers(), st.integers())
def test_keys_tell_numbers_of_any_size_apart(a: int, b: int) -> None:
    assert (hash_key("x", a) == hash_key("x", b)) == (a == b)
    assert hash_key("x", a) != hash_key("y", a)
    assert (hash_key("x", a) == hash_key("x", -a)) == (a == 0)
    assert hash_key("x", a, b) != hash_key("x", b)


def test_related_words_take_one_offset_for_all_or_one_each() -> None:
    words = hash_words(5, 4)
    each = related_words(words, torch.full((4,), 3))
    assert torch.equal(each, related_words(words, 3))
    assert not torch.equal(each, related_words(words, 2))
