from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pytest_vdist.reference_impl.arguments import Arguments

GROUP = Arguments("tp:0", world_size=3, rank_in_group=1, device=torch.device("cpu"))


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_ranks_of_the_group_are_taken(rank: Any) -> None:
    assert GROUP.rank(rank, "src") == rank


@pytest.mark.parametrize("rank", [-1, -3, 3, 99])
@pytest.mark.parametrize("check", [GROUP.rank, GROUP.peer])
def test_a_rank_outside_the_group_is_refused_naming_value_group_and_world_size(
    check: Callable[..., int], rank: Any
) -> None:
    with pytest.raises(ValueError, match="is not a rank of group") as refusal:
        check(rank, "dst")
    message = str(refusal.value)
    assert f"dst={rank}" in message
    assert "'tp:0'" in message
    assert "world size 3" in message


@pytest.mark.parametrize("rank", [True, 1.0, "1", None])
def test_a_rank_that_is_no_int_is_refused(rank: Any) -> None:
    with pytest.raises(TypeError, match="src="):
        GROUP.rank(rank, "src")


def test_this_rank_is_no_peer_of_itself() -> None:
    with pytest.raises(ValueError, match="dst=1 is this rank itself in group 'tp:0'"):
        GROUP.peer(1, "dst")


@pytest.mark.parametrize("value", [1, None, [1.0]])
def test_what_is_no_tensor_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="all_reduce of group 'tp:0' takes a tensor"):
        GROUP.tensor(value, "all_reduce")


def test_a_sparse_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="only dense tensors move"):
        GROUP.tensor(torch.eye(2).to_sparse(), "all_reduce")


def test_a_tensor_on_another_device_is_refused_naming_both() -> None:
    with pytest.raises(ValueError, match="got a tensor on meta, and the group works on cpu"):
        GROUP.tensor(torch.empty(2, device="meta"), "all_reduce")


@pytest.mark.parametrize(("dim", "expected"), [(-3, 0), (-1, 2), (0, 0), (2, 2)])
def test_a_dimension_may_be_negative(dim: int, expected: int) -> None:
    assert GROUP.dim(torch.empty(2, 3, 4), dim, "all_gather") == expected


@pytest.mark.parametrize("dim", [-4, 3])
def test_a_dimension_that_is_not_there_is_refused(dim: int) -> None:
    with pytest.raises(ValueError, match=rf"dim={dim} of all_gather .* dimensions -3 to 2"):
        GROUP.dim(torch.empty(2, 3, 4), dim, "all_gather")


def test_a_tensor_without_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="0-d tensor"):
        GROUP.dim(torch.tensor(1.0), -1, "all_gather")


def test_a_size_that_does_not_divide_is_refused_with_a_way_out() -> None:
    GROUP.divisible(torch.empty(2, 6), -1, "reduce_scatter")
    with pytest.raises(ValueError, match=r"size 2 of dim 0 .* world size 3; .* reduce_scatterv"):
        GROUP.divisible(torch.empty(2, 6), 0, "reduce_scatter")


@pytest.mark.parametrize("sizes", [[], [1, 2], [1, 2, 3, 4], [1, -1, 3]])
def test_sizes_must_be_one_for_each_rank_and_not_negative(sizes: Any) -> None:
    with pytest.raises(ValueError, match="one size of 0 or more for each of its 3 ranks"):
        GROUP.sizes(sizes, "all_gatherv")


def test_sizes_must_match_the_tensor_of_this_rank() -> None:
    GROUP.own_size(torch.empty(2, 5), 1, [0, 5, 1], "all_gatherv")
    with pytest.raises(ValueError, match=r"gives rank 1 4, but its tensor .* has 5 in dim 1"):
        GROUP.own_size(torch.empty(2, 5), 1, [5, 4, 1], "all_gatherv")


def test_sizes_must_add_up_to_what_is_scattered() -> None:
    GROUP.total_size(torch.empty(2, 5), 1, [0, 4, 1], "reduce_scatterv")
    with pytest.raises(ValueError, match=r"add up to 6, but dim 1 .* has 5"):
        GROUP.total_size(torch.empty(2, 5), 1, [1, 4, 1], "reduce_scatterv")


def layouts(
    *shapes: Any, dtypes: Any = (torch.float32,) * 3
) -> list[list[tuple[tuple[int, ...], torch.dtype]]]:
    return [[(shape, dtype)] for shape, dtype in zip(shapes, dtypes, strict=True)]


@pytest.mark.parametrize(
    ("dim", "shapes", "sizes"),
    [(0, [(1, 4), (0, 4), (3, 4)], [1, 0, 3]), (-1, [(2, 1), (2, 5), (2, 0)], [1, 5, 0])],
)
def test_gathered_sizes_are_those_along_the_dimension(dim: int, shapes: Any, sizes: Any) -> None:
    assert GROUP.gathered_sizes(layouts(*shapes), dim) == [sizes]


@pytest.mark.parametrize(
    "of_ranks",
    [
        layouts((1, 4), (1, 5), (1, 4)),
        layouts((1, 4), (1, 4, 1), (1, 4)),
        layouts((4,), (4,), (4,), dtypes=(torch.float32, torch.int32, torch.float32)),
    ],
)
def test_tensors_that_cannot_be_joined_are_refused_showing_all_ranks(of_ranks: Any) -> None:
    with pytest.raises(ValueError, match="they may differ in dim 0 only"):
        GROUP.gathered_sizes(of_ranks, 0)


def test_lists_of_different_lengths_cannot_be_gathered() -> None:
    with pytest.raises(ValueError, match=r"the ranks pass \[1, 0, 1\] tensors"):
        GROUP.gathered_sizes([[((1,), torch.float32)], [], [((1,), torch.float32)]], 0)


@pytest.mark.parametrize(
    ("shape", "dtype", "sizes"),
    [((6, 2), torch.float32, None), ((2, 1), torch.float32, [1, 2, 3]), ((2, 2), torch.float64, None)],
)
def test_an_output_that_does_not_take_the_chunk_is_refused(
    shape: tuple[int, ...], dtype: torch.dtype, sizes: Any
) -> None:
    with pytest.raises(ValueError, match="but this rank's chunk has shape"):
        GROUP.scatter_output(torch.empty(6, 2), torch.empty(shape, dtype=dtype), 0, sizes)


@pytest.mark.parametrize("sizes", [None, [2, 2, 2], [3, 2, 1]])
def test_an_output_of_the_shape_of_the_chunk_is_taken(sizes: Any) -> None:
    GROUP.scatter_output(torch.empty(6, 2), torch.empty(2, 2), -2, sizes)
    with pytest.raises(ValueError, match="chunk has shape"):
        GROUP.scatter_output(torch.empty(6, 2), torch.empty(3, 2), -2, sizes)
