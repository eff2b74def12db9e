"""Operations that are declared to work in place: what the judge demands, and what callers see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from pytest_vdist.implementations.protocol import Capabilities
from pytest_vdist.judge.cases import Case, judge, perform, shared_memory
from pytest_vdist.ranks.in_place import KeepsInputs

CASES = [Case("all_reduce", (4, 3), torch.float32, layout=layout) for layout in ("strided", "transposed")]
EXPANDED = Case("all_reduce", (4, 3), torch.float32, layout="expanded")
WORLD = 2


@dataclass
class Doubling:
    """One rank of two that pass the same: the sum is twice the input."""

    writes: bool
    returns_input: bool
    rank: int = 0
    rank_in_group: int = 0
    world_size: int = WORLD
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        total = input_ * 2
        if self.writes and 0 not in input_.stride():
            input_.copy_(total)
            return input_ if self.returns_input else total
        return total


class Alike(Case):
    """A case in which every rank passes what rank 0 passes."""

    def input(self, rank: int, world_size: int) -> torch.Tensor:
        return super().input(rank * 0, world_size)


def problem(group: Any, case: Case) -> str:
    """Return what is wrong with the sum of two ranks like that one; "" for nothing."""
    alike = Alike(**{name: getattr(case, name) for name in vars(case)})
    observations = [perform(group, alike) for _ in range(WORLD)]
    try:
        judge(alike, observations)
    except AssertionError as error:
        return str(error).partition(": ranks 0, 1: ")[2]
    return ""


@pytest.mark.parametrize("case", [*CASES, EXPANDED], ids=lambda case: str(case.layout))
def test_what_is_declared_to_be_in_place_passes_if_it_is(case: Case) -> None:
    assert problem(KeepsInputs(Doubling(writes=True, returns_input=True), ("all_reduce",)), case) == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.layout))
def test_a_false_claim_is_found(case: Case) -> None:
    not_at_all = KeepsInputs(Doubling(writes=False, returns_input=False), ("all_reduce",))
    assert problem(not_at_all, case) == "the output is not the input, though the operation is in place"
    half = KeepsInputs(Doubling(writes=True, returns_input=False), ("all_reduce",))
    assert problem(half, case) == "the output is not the input, though the operation is in place"


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.layout))
def test_in_place_without_a_claim_is_found(case: Case) -> None:
    assert problem(Doubling(writes=True, returns_input=True), case).splitlines() == [
        "the input was changed",
        "  ranks 0, 1: the output shares memory with the input",
    ]
    assert problem(Doubling(writes=False, returns_input=False), case) == ""


def test_results_in_place_stay_apart_from_each_other() -> None:
    declared = KeepsInputs(Doubling(writes=True, returns_input=True), ("all_reduce",))
    assert shared_memory(declared, CASES) == []
    assert len(shared_memory(Doubling(writes=True, returns_input=True), CASES)) == 2 * len(CASES)


def test_callers_keep_their_inputs() -> None:
    group: Any = KeepsInputs(Doubling(writes=True, returns_input=True), ("all_reduce",))
    given = torch.ones(4, 6)[:, ::2].t()
    summed = group.all_reduce(given)
    assert (given == 1).all()
    assert (summed == 2).all()
    assert summed.stride() == given.stride()
    assert group.world_size == WORLD
    with pytest.raises(TypeError):
        group.all_reduce(None)


def test_only_operations_that_can_be_in_place_are_declared() -> None:
    with pytest.raises(ValueError, match="in_place names operations out of all_reduce, got 'gather'"):
        Capabilities(in_place=("gather",))
