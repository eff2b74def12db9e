"""The probes see what simulated reductions do, in every format."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from pytest_vdist.judge.probes import SumProbe, Tree, tree_text

RING: Tree = (((0, 1), 2), 3)
HALVING: Tree = ((0, 2), (1, 3))
BALANCED: Tree = ((0, 1), (2, 3))


def add(tree: Tree, inputs: Sequence[torch.Tensor], accumulator: torch.dtype) -> torch.Tensor:
    """Sum in the tree's order, each addition rounded to the accumulator."""
    if isinstance(tree, int):
        return inputs[tree].to(accumulator)
    left, right = (add(side, inputs, accumulator) for side in tree)
    return (left.to(torch.float64) + right.to(torch.float64)).to(accumulator)


def summed(
    tree: Tree, dtype: torch.dtype, accumulator: torch.dtype, blocks: int = 1
) -> tuple[SumProbe, torch.Tensor]:
    probe = SumProbe(dtype, 4, blocks)
    return probe, add(tree, [probe.input(rank) for rank in range(4)], accumulator).to(dtype)


@pytest.mark.parametrize("tree", [RING, HALVING, BALANCED], ids=tree_text)
@pytest.mark.parametrize(
    ("dtype", "accumulator", "seen"),
    [
        (torch.bfloat16, torch.bfloat16, "8 bits"),
        (torch.bfloat16, torch.float32, "24 bits"),
        (torch.float16, torch.float16, "11 bits"),
        (torch.float16, torch.float32, "at least 16 bits"),
        (torch.float32, torch.float32, "24 bits"),
        (torch.float32, torch.bfloat16, "8 bits"),
        (torch.float8_e4m3fn, torch.float8_e4m3fn, "4 bits"),
        (torch.float64, torch.float64, "53 bits"),
    ],
)
def test_the_precision_of_the_accumulator_is_seen(
    tree: Tree, dtype: torch.dtype, accumulator: torch.dtype, seen: str
) -> None:
    probe, total = summed(tree, dtype, accumulator)
    assert str(probe.accumulator(total)) == seen


def test_one_part_of_a_message_that_sums_otherwise_lowers_the_precision() -> None:
    probe, total = summed(RING, torch.bfloat16, torch.float32, blocks=3)
    total[-probe.block :] = summed(RING, torch.bfloat16, torch.bfloat16)[1]
    assert probe.accumulator(total).precision == 8


@pytest.mark.parametrize("tree", [RING, HALVING, BALANCED, ((3, (0, 2)), 1)], ids=tree_text)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_order_of_additions_is_seen(tree: Tree, dtype: torch.dtype) -> None:
    probe, total = summed(tree, dtype, dtype)
    assert list(map(_shape, probe.trees(total))) == [_shape(tree)]


def test_every_order_within_one_message_is_seen() -> None:
    probe, total = summed(RING, torch.bfloat16, torch.bfloat16, blocks=3)
    total[: probe.block] = summed(HALVING, torch.bfloat16, torch.bfloat16)[1]
    assert {_shape(tree) for tree in probe.trees(total)} == {_shape(RING), _shape(HALVING)}


def test_an_accumulator_wider_than_every_number_tried_shows_no_order() -> None:
    probe, total = summed(RING, torch.float16, torch.float32)
    assert probe.trees(total) == []


def test_sums_that_no_tree_gives_show_no_order() -> None:
    probe, total = summed(RING, torch.bfloat16, torch.bfloat16)
    pairs = total.reshape(len(probe.exponents), len(probe.pairs))
    pairs[8 + 2 + 1 - 1] = torch.tensor([0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0])
    assert [tree_text(tree) for tree in probe.trees(total)] == ["no order to be seen"]


def test_two_ranks_are_too_few() -> None:
    with pytest.raises(ValueError, match="the probe needs at least 3 ranks, got 2"):
        SumProbe(torch.float32, 2)


def _shape(tree: Tree | None) -> object:
    """Addition commutes: which side is which cannot be seen."""
    return frozenset(map(_shape, tree)) if isinstance(tree, tuple) else tree
