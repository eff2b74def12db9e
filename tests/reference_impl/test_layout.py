from __future__ import annotations

from typing import Any

import pytest

from pytest_vdist.reference_impl.model_parallel import group_layout


def test_tensor_ranks_are_neighbours_then_pipeline_then_data() -> None:
    assert group_layout(8, tensor=2, pipeline=2) == {
        "tp": [[0, 1], [2, 3], [4, 5], [6, 7]],
        "pp": [[0, 2], [1, 3], [4, 6], [5, 7]],
        "dp": [[0, 4], [1, 5], [2, 6], [3, 7]],
        "ep": [[0, 1, 4, 5], [2, 3, 6, 7]],
    }


def test_without_sizes_all_ranks_are_data_parallel() -> None:
    layout = group_layout(3)
    assert layout["dp"] == layout["ep"] == [[0, 1, 2]]
    assert layout["tp"] == layout["pp"] == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("tensor", "pipeline", "data"), [(1, 1, 1), (2, 3, 4), (4, 1, 2), (1, 5, 1), (3, 2, 1)]
)
def test_every_rank_is_in_one_group_of_each_kind_and_sizes_are_right(
    tensor: Any, pipeline: int, data: int
) -> None:
    world_size = tensor * pipeline * data
    layout = group_layout(world_size, tensor, pipeline, data)
    sizes = {"tp": tensor, "pp": pipeline, "dp": data, "ep": data * tensor}
    for name, groups in layout.items():
        assert sorted(rank for ranks in groups for rank in ranks) == list(range(world_size))
        assert {len(ranks) for ranks in groups} == {sizes[name]}
        assert all(ranks == sorted(ranks) for ranks in groups)


def test_two_ranks_share_no_more_than_one_of_tensor_pipeline_and_data_groups() -> None:
    layout = group_layout(12, tensor=2, pipeline=3)
    pairs = [
        (one, other)
        for name in ("tp", "pp", "dp")
        for ranks in layout[name]
        for one in ranks
        for other in ranks
        if one < other
    ]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        (
            (4, 3, 1, None),
            "tensor 3 x pipeline 1 x data ? parallel sizes do not multiply to the world size 4",
        ),
        ((4, 2, 1, 1), "tensor 2 x pipeline 1 x data 1 parallel sizes do not multiply to the world size 4"),
        ((4, 8, 1, None), "tensor 8 x pipeline 1 x data ? parallel sizes do not"),
        ((4, 0, 1, None), "tensor parallel size 0 is not above 0"),
        ((4, 1, -1, None), "pipeline parallel size -1 is not above 0"),
        ((4, 1, 1, 0), "data parallel size 0 is not above 0"),
    ],
)
def test_sizes_that_do_not_make_up_the_world_are_refused(sizes: Any, text: str) -> None:
    with pytest.raises(ValueError, match="parallel size") as refusal:
        group_layout(*sizes)
    assert text in str(refusal.value)
