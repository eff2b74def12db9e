from __future__ import annotations

import pytest

from pytest_vdist.reference_impl.subgroups import validate_group_ranks


@pytest.mark.parametrize("group_ranks", [[[0, 1, 2, 3]], [[1, 0], [3, 2]], [[2]], [[0, 2], [3]]])
def test_disjoint_groups_of_the_world_are_taken_in_any_order(group_ranks: list[list[int]]) -> None:
    validate_group_ranks(group_ranks, 4)


@pytest.mark.parametrize(
    ("group_ranks", "text"),
    [
        ([], "group_ranks is empty"),
        ([[0, 1], []], "has an empty group"),
        ([[0, 1, 0]], r"names rank\(s\) \[0\] twice in one group"),
        ([[0, 1], [1, 2]], r"puts rank\(s\) \[1\] in several groups"),
        ([[0, 4]], r"names rank\(s\) \[4\], and the world has 0 to 3"),
        ([[0, -1]], r"names rank\(s\) \[-1\], and the world has 0 to 3"),
    ],
)
def test_wrong_groups_are_refused_saying_what_is_wrong(group_ranks: list[list[int]], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        validate_group_ranks(group_ranks, 4)
