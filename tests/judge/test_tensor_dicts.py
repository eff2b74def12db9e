from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_vdist.judge.tensor_dicts import tensor_dict_differences, tensor_dict_input

DTYPES = [torch.float32, torch.bfloat16, torch.bool]


def test_the_same_arguments_make_the_same_dictionary() -> None:
    one = tensor_dict_input(DTYPES, rank=1, seed=2)
    assert tensor_dict_differences(tensor_dict_input(DTYPES, rank=1, seed=2), one) == []


@pytest.mark.parametrize(("rank", "seed"), [(0, 2), (1, 3)])
def test_every_rank_and_seed_makes_other_tensors(rank: int, seed: int) -> None:
    one = tensor_dict_input(DTYPES, rank=1, seed=2)
    other = tensor_dict_input(DTYPES, rank=rank, seed=seed)
    tensors = [key for key, value in one.items() if isinstance(value, torch.Tensor) and value.numel() > 1]
    same_keys = [key for key in tensors if key in other]
    assert len(same_keys) >= 3
    assert all(tensor_dict_differences({key: other[key]}, {key: one[key]}) for key in same_keys)
    assert other["text"] != one["text"]


def test_keys_are_in_no_sorted_order() -> None:
    keys = list(tensor_dict_input(DTYPES, rank=0, seed=0))
    assert keys not in (sorted(keys), sorted(keys, reverse=True))


def test_strides_do_not_count() -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    assert tensor_dict_differences({"a": tensor.t().contiguous().t()}, {"a": tensor}) == []


@pytest.mark.parametrize(
    ("got", "want", "message"),
    [
        (None, {}, "the dictionary: got NoneType None, want dict {}"),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}, "the dictionary: got the keys ['b', 'a'], want ['a', 'b']"),
        ({"a": {}}, {"a": {"b": 1}}, "['a']: got the keys [], want ['b']"),
        ({"a": True}, {"a": 1}, "['a']: got bool True, want int 1"),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}, "['a']['b']: got list [1], want list [2]"),
        ({"a": None}, {"a": torch.zeros(2)}, "['a']: got NoneType None, want a tensor of shape (2,)"),
        ({"a": torch.zeros(2)}, {"a": None}, "['a']: got a tensor of shape (2,), want NoneType None"),
        ({"a": torch.zeros(3)}, {"a": torch.zeros(2)}, "['a']: got shape (3,), want (2,)"),
        ({"a": torch.zeros(2)}, {"a": torch.zeros(2).half()}, "['a']: got dtype float32, want float16"),
        (
            {"a": torch.zeros(2, device="meta")},
            {"a": torch.zeros(2)},
            "['a']: got device type meta, want cpu",
        ),
        (
            {"a": torch.tensor([0.0, -0.0])},
            {"a": torch.tensor([0.0, 0.0])},
            "['a']: index (1,): got -0.0 (0x80000000), want 0.0 (0x00000000); 1 of 2 elements differ",
        ),
        ({"a": "x" * 90}, {"a": ""}, f"['a']: got str '{'x' * 76}..., want str ''"),
    ],
)
def test_a_difference_is_named_with_its_place(got: Any, want: Any, message: str) -> None:
    assert tensor_dict_differences(got, want) == [message]


def test_every_difference_is_named() -> None:
    got = {"a": 1, "b": torch.zeros(2, dtype=torch.int8), "c": {"d": 3}}
    want = {"a": 2, "b": torch.ones(2, dtype=torch.int8), "c": {"d": 4}}
    assert [text.split(":")[0] for text in tensor_dict_differences(got, want)] == [
        "['a']",
        "['b']",
        "['c']['d']",
    ]
