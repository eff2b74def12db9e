"""Cases performed on simulated groups: one process plays each rank in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from pytest_vdist.judge import oracle, same_bits
from pytest_vdist.judge.cases import Case, assert_cases, assert_results_stay_apart, perform, shared_memory


@dataclass
class Loner:
    """A group of one rank that answers by a function."""

    answer: Callable[[torch.Tensor], torch.Tensor | None]
    rank: int = 0
    rank_in_group: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor | None:
        assert dim == -1
        return self.answer(input_)

    broadcast = all_gather


@dataclass
class Simulated:
    """Answers as the oracle does, or as `broken` makes of its results; plays one rank after the other."""

    broken: Callable[[Sequence[Sequence[torch.Tensor]], int], torch.Tensor] | None = None

    def __call__(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        world_size: int,
        group_ranks: list[list[int]] | None = None,
    ) -> list[Any]:
        groups = group_ranks or [list(range(world_size))]
        first = [self._play(function, args, groups, rank, None) for rank in range(world_size)]
        inputs = [calls for calls, _ in first]
        return [self._play(function, args, groups, rank, inputs)[1] for rank in range(world_size)]

    def _play(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        groups: list[list[int]],
        rank: int,
        inputs: list[list[torch.Tensor]] | None,
    ) -> tuple[list[torch.Tensor], Any]:
        """Return the inputs of this rank's calls and the function's result; `inputs` are all ranks'."""
        ranks = next(ranks for ranks in groups if rank in ranks)
        calls: list[torch.Tensor] = []

        def answer(input_: torch.Tensor) -> torch.Tensor:
            number = len(calls)
            calls.append(input_.clone())
            if inputs is None:
                return input_.clone()
            by_group = [[inputs[other][number] for other in group] for group in groups]
            if self.broken is not None:
                return self.broken(by_group, groups.index(ranks))
            return oracle.all_gather(by_group[groups.index(ranks)])[0].clone()

        group = Loner(answer, rank, ranks.index(rank), len(ranks))
        return calls, function(group, *args)


CASE = Case("all_gather", (3, 2), torch.float32, values="movement")


def test_right_calls_pass_in_every_group() -> None:
    assert assert_cases(Simulated(), [CASE, CASE], world_size=4, group_ranks=[[0, 2], [1, 3]]) == 0.0


def test_the_data_of_another_group_are_found() -> None:
    def of_first_group(by_group: Sequence[Sequence[torch.Tensor]], group: int) -> torch.Tensor:
        del group
        return oracle.all_gather(by_group[0])[0].clone()

    with pytest.raises(AssertionError, match=r"^all_gather\(shape=\(3, 2\).*ranks 0, 1, index"):
        assert_cases(Simulated(of_first_group), [CASE], world_size=4, group_ranks=[[0, 2], [1, 3]])


def test_equal_calls_of_one_list_have_different_data() -> None:
    kept: list[torch.Tensor] = []

    def first_result(by_group: Sequence[Sequence[torch.Tensor]], group: int) -> torch.Tensor:
        kept.append(oracle.all_gather(by_group[group])[0])
        return kept[0].clone()

    assert_cases(Simulated(first_result), [CASE], world_size=2)
    kept.clear()
    with pytest.raises(AssertionError, match="index"):
        assert_cases(Simulated(first_result), [CASE, CASE], world_size=2)


@pytest.mark.parametrize("assertion", [assert_cases, assert_results_stay_apart])
def test_a_list_without_cases_is_refused(assertion: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="there is no case to judge"):
        assertion(Simulated(), [], world_size=2)


def test_calls_are_made_through_what_is_given_and_inputs_are_not() -> None:
    default = torch.get_default_dtype()
    seen = []

    def through(call: Callable[[], Any]) -> Any:
        torch.set_default_dtype(torch.float64)
        try:
            return call()
        finally:
            torch.set_default_dtype(default)

    def answer(tensor: torch.Tensor) -> torch.Tensor:
        seen.append((tensor.dtype, torch.get_default_dtype()))
        return tensor.clone()

    perform(Loner(answer), Case("broadcast", (3,), torch.float32), through)
    assert seen == [(torch.float32, torch.float64)]
    assert torch.get_default_dtype() == default


def test_other_values_change_the_data_alone() -> None:
    other = CASE.with_other_values(1)
    assert replace(other, seed=CASE.seed) == CASE == CASE.with_other_values(0)
    assert not same_bits(other.input(0, 2), CASE.input(0, 2))


def test_layouts_are_dealt_out_to_the_ranks_in_turn() -> None:
    case = replace(CASE, layout=("contiguous", "expanded"))
    strides: list[tuple[int, ...]] = []
    for rank in range(3):
        group = Loner(lambda x: strides.append(x.stride()) or x.clone(), rank, rank, 3)  # type: ignore[func-returns-value]
        assert perform(group, case).input_intact
    assert strides == [(2, 1), (0, 1), (2, 1)]
    assert torch.equal(case.input(1, 3)[0].view(torch.int32), case.input(1, 3)[1].view(torch.int32))
    assert "layout=('contiguous', 'expanded')" in str(case)


def test_ragged_gathers_take_each_rank_own_size_along_the_dimension() -> None:
    case = Case("all_gatherv", (5, 9), torch.int32, {"dim": -1, "sizes": [2, 0]}, values="movement")
    assert [tuple(case.input(rank, 2).shape) for rank in range(2)] == [(5, 2), (5, 0)]


def test_an_exception_in_a_call_names_the_case() -> None:
    def refuse(input_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(f"no {input_.dtype}")

    with pytest.raises(RuntimeError, match=r"no torch\.float32") as caught:
        perform(Loner(refuse), CASE)
    assert caught.value.__notes__ == [f"raised by {CASE}"]


def test_fresh_results_share_nothing() -> None:
    assert shared_memory(Loner(torch.clone, world_size=2), [CASE, CASE]) == []
    assert_results_stay_apart(Simulated(), [CASE], world_size=2)


def test_a_result_in_reused_memory_is_found_and_so_is_its_change() -> None:
    scratch = torch.empty(3, 2)
    group = Loner(scratch.copy_, world_size=2)
    assert shared_memory(group, [CASE]) == [
        f"the result of call 0, {CASE}, was changed by a later call",
        f"the result of call 1, {CASE}, shares memory with the result of call 0",
    ]


def test_a_result_that_is_an_earlier_input_is_found() -> None:
    seen: list[torch.Tensor] = []
    group = Loner(lambda x: seen.append(x) or seen[0], world_size=2)  # type: ignore[func-returns-value]
    assert f"the result of call 1, {CASE}, shares memory with the input of call 0" in shared_memory(
        group, [CASE]
    )


def test_the_own_input_is_no_result_but_alone_or_in_place() -> None:
    assert shared_memory(Loner(lambda x: x), [CASE]) == []
    assert shared_memory(Loner(lambda x: x, world_size=2), [replace(CASE, operation="broadcast")]) == []
    assert shared_memory(Loner(lambda x: x, world_size=2), [CASE]) == [
        f"the result of call {n}, {CASE}, shares memory with the input of call {n}" for n in (0, 1)
    ]


def test_ranks_without_results_share_nothing() -> None:
    assert shared_memory(Loner(lambda _: None, world_size=2), [CASE]) == []


def test_what_is_shared_is_said_with_the_rank() -> None:
    shared = torch.zeros(3, 4)

    def scratch(by_group: Sequence[Sequence[torch.Tensor]], group: int) -> torch.Tensor:
        return shared.copy_(oracle.all_gather(by_group[group])[0])

    with pytest.raises(AssertionError, match=r"^rank 0: the result of call 0, .* was changed"):
        assert_results_stay_apart(Simulated(scratch), [CASE], world_size=2)
