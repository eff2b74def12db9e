from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_vdist.judge import (
    all_gather,
    all_gatherv,
    all_reduce,
    broadcast,
    dtype_name,
    exact_sum_input,
    gather,
    movement_input,
    reduce_scatter,
    reduce_scatterv,
    same_bits,
    scattered,
)

from .simulated import FLOATS, INTEGERS

Lists = list[list[int]]
A = torch.tensor([[1, 2], [3, 4]])
B = torch.tensor([[50, 60], [70, 80]])


def listed(results: list[torch.Tensor] | list[torch.Tensor | None]) -> list[Lists | None]:
    return [None if each is None else each.tolist() for each in results]


def test_all_reduce_gives_every_rank_the_sum() -> None:
    assert listed(all_reduce([A, B])) == [[[51, 62], [73, 84]]] * 2


def test_all_gather_joins_in_rank_order_along_the_last_dimension_by_default() -> None:
    assert listed(all_gather([A, B])) == [[[1, 2, 50, 60], [3, 4, 70, 80]]] * 2
    assert listed(all_gather([A, B], dim=0)) == [[[1, 2], [3, 4], [50, 60], [70, 80]]] * 2
    assert listed(all_gather([A, B], dim=-2)) == listed(all_gather([A, B], dim=0))


def test_all_gatherv_joins_different_sizes() -> None:
    parts = [A, B[:1], A[:0]]
    assert listed(all_gatherv(parts, sizes=[2, 1, 0])) == [[[1, 2], [3, 4], [50, 60]]] * 3
    assert listed(all_gatherv([A, B])) == listed(all_gather([A, B], dim=0))


def test_reduce_scatter_gives_each_rank_its_part_of_the_sum() -> None:
    assert listed(reduce_scatter([A, B])) == [[[51], [73]], [[62], [84]]]
    assert listed(reduce_scatter([A, B], dim=0)) == [[[51, 62]], [[73, 84]]]


def test_reduce_scatterv_gives_parts_of_the_given_sizes() -> None:
    assert listed(reduce_scatterv([A, B], dim=0, sizes=[0, 2])) == [[], [[51, 62], [73, 84]]]
    assert listed(reduce_scatterv([A, B])) == listed(reduce_scatter([A, B]))


def test_gather_gives_the_destination_all_and_the_others_none() -> None:
    assert listed(gather([A, B], dst=1)) == [None, [[1, 2, 50, 60], [3, 4, 70, 80]]]
    assert listed(gather([A, B], dst=0, dim=0))[1] is None


def test_broadcast_gives_every_rank_the_source() -> None:
    assert listed(broadcast([A, B], src=1)) == [B.tolist()] * 2


def test_scattered_gives_the_addends_of_each_part() -> None:
    assert [listed(parts) for parts in scattered([A, B], dim=0)] == [
        [[[1, 2]], [[50, 60]]],
        [[[3, 4]], [[70, 80]]],
    ]


@settings(max_examples=40, deadline=None)
@given(
    world_size=st.integers(1, 5),
    dim=st.integers(-3, 2),
    sizes=st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
def test_scattering_a_sum_and_gathering_it_is_the_sum(world_size: int, dim: int, sizes: list[int]) -> None:
    shape = list(sizes)
    shape[dim] *= world_size
    inputs = [
        exact_sum_input(shape, torch.bfloat16, rank=r, world_size=world_size, seed=2)
        for r in range(world_size)
    ]
    parts = reduce_scatter(inputs, dim)
    assert same_bits(all_gather(parts, dim)[0], all_reduce(inputs)[0])


@pytest.mark.parametrize(
    "dtype", [*FLOATS, *INTEGERS, torch.bool, torch.complex64, torch.complex128], ids=dtype_name
)
def test_gathering_keeps_every_bit_of_every_dtype(dtype: torch.dtype) -> None:
    inputs = [movement_input((3, 5), dtype, rank=rank, seed=1) for rank in range(3)]
    joined = all_gather([inputs[0].t().contiguous().t(), *inputs[1:]], dim=1)[0]
    for rank, each in enumerate(inputs):
        assert same_bits(joined[:, 5 * rank : 5 * rank + 5], each)


def test_wrong_arguments_are_refused_with_their_values() -> None:
    with pytest.raises(ValueError, match=r"dimension 0 of size 2 has no 3 equal parts"):
        reduce_scatter([A, A, A], dim=0)
    with pytest.raises(ValueError, match=r"sizes=\[1, 2\] for 2 ranks do not make up dimension 0 of size 2"):
        reduce_scatterv([A, B], dim=0, sizes=[1, 2])
    with pytest.raises(
        ValueError, match=r"inputs have the sizes \[2, 1\] along dimension 0, but sizes=\[1, 1\]"
    ):
        all_gatherv([A, B[:1]], sizes=[1, 1])
    with pytest.raises(ValueError, match=r"all_gather takes inputs of one shape, got \[\(1, 2\), \(2, 2\)\]"):
        all_gather([A, B[:1]])
    with pytest.raises(ValueError, match=r"shape \(2, 1\) of torch\.int64 cannot be joined with \(2, 2\)"):
        all_gatherv([A, B[:, :1]], sizes=[2, 2])
    with pytest.raises(ValueError, match="rank 2 is not in a group of 2 ranks"):
        broadcast([A, B], src=2)
    with pytest.raises(ValueError, match="rank -1 is not in a group of 2 ranks"):
        gather([A, B], dst=-1)
    with pytest.raises(ValueError, match=r"a tensor of shape \(\) has no dimension -1"):
        all_gather([torch.tensor(1), torch.tensor(2)])
