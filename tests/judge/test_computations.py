"""Computations on simulated ranks, and what is said of ranks that differ from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pytest_vdist.judge.computations import Computation, Observed, assert_computations, judge, perform
from pytest_vdist.judge.simulation import SimulatedGroup, simulate
from pytest_vdist.suites.compile import test_all_reduce as suite

OF_THE_RUN: Any = None
SUM = Computation("a sum", lambda g, x, w: (g.all_reduce(x @ w), x @ w))


class Uncompiled:
    """What `compiled` returns, of as many graphs as it is told."""

    def __init__(self, function: Callable[..., Any], graphs: int) -> None:
        self._function, self.graphs = function, graphs

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


def simulated_run(
    graphs: int, group_of: Callable[[SimulatedGroup], Any] = lambda group: group
) -> Callable[..., Any]:
    """Return what dispatches to simulated ranks and compiles to so many graphs."""

    def run(
        function: Callable[..., Any], computations: Any, _: Any, mode: str, *rest: Any, world_size: int
    ) -> Any:
        def compile_(function: Callable[..., Any], *_: Any, **__: Any) -> Uncompiled:
            return Uncompiled(function, graphs)

        layout = [list(range(world_size))]
        return simulate(
            lambda group: function(group_of(group), computations, compile_, mode), [[]] * world_size, [layout]
        )

    return run


def failures(group_of: Callable[[SimulatedGroup], Any], computation: Computation = SUM) -> str:
    with pytest.raises(AssertionError) as failed:
        assert_computations(
            simulated_run(1, group_of), [computation], compile_=OF_THE_RUN, mode="aot_eager", world_size=2
        )
    return str(failed.value)


class Wrong:
    """A group whose all_reduce is another."""

    def __init__(
        self, group: SimulatedGroup, all_reduce: Callable[[SimulatedGroup, torch.Tensor], Any]
    ) -> None:
        self.rank, self.world_size, self.device = group.rank, group.world_size, group.device
        self.all_reduce = lambda tensor: all_reduce(group, tensor)


def test_right_ranks_pass() -> None:
    assert_computations(simulated_run(1), [SUM], compile_=OF_THE_RUN, mode="aot_eager", world_size=3)


def test_zeros_are_called_by_their_name() -> None:
    text = failures(lambda group: Wrong(group, lambda g, x: torch.zeros_like(g.all_reduce(x))))
    assert "'a sum', call 1 of 3, rank 0: result 0 is all zeros and wrong: index (0, 0): got 0.0" in text
    assert text.endswith("'a sum': and 3 more")


def test_stale_values_are_called_by_their_name() -> None:
    def kept(group: SimulatedGroup) -> Wrong:
        results: list[torch.Tensor] = []

        def all_reduce(group: SimulatedGroup, tensor: torch.Tensor) -> torch.Tensor:
            results.append(group.all_reduce(tensor))
            return results[0].clone()

        return Wrong(group, all_reduce)

    assert "call 2 of 3, rank 0: result 0 is stale (that of call 1) and wrong" in failures(kept)


def test_a_result_that_a_later_call_overwrites_is_found() -> None:
    def scratch(group: SimulatedGroup) -> Wrong:
        buffer = torch.zeros(4, 8)
        return Wrong(group, lambda g, x: buffer.copy_(g.all_reduce(x)))

    assert "call 1 of 3, rank 0: result 0 was changed by later calls: index (0, 0)" in failures(scratch)


def test_an_argument_that_is_written_to_is_found() -> None:
    def in_place(group: SimulatedGroup, tensor: torch.Tensor) -> torch.Tensor:
        group.all_reduce_(tensor)
        return tensor

    argument = Computation("an argument", lambda g, x, w: g.all_reduce(x))
    text = failures(lambda group: Wrong(group, in_place), argument)
    assert "call 1 of 3, rank 0: input 0, which keeps its values, is wrong after the call" in text


@pytest.mark.parametrize("graphs", [0, 2])
def test_the_number_of_graphs_is_bounded(graphs: int) -> None:
    with pytest.raises(
        AssertionError, match=f"'a sum', rank 1: {graphs} graphs for 3 calls, expected 1 to 1"
    ):
        assert_computations(simulated_run(graphs), [SUM], compile_=OF_THE_RUN, mode="inductor", world_size=2)
    assert_computations(simulated_run(graphs), [SUM], compile_=OF_THE_RUN, mode="eager", world_size=2)


def test_computations_that_cannot_be_captured_are_no_cuda_graphs() -> None:
    branch = Computation("a branch", lambda g, x, w: x, capturable=False)
    with pytest.raises(ValueError, match="there is no computation to judge"):
        assert_computations(simulated_run(1), [branch], compile_=OF_THE_RUN, mode="cudagraph", world_size=2)


def test_an_exception_names_the_computation() -> None:
    broken = Computation("division", lambda g, x, w: 1 // 0)
    with pytest.raises(ZeroDivisionError) as raised:
        simulated_run(1)(perform, [broken], None, "eager", world_size=2)
    assert raised.value.__notes__ == ["raised by 'division' in mode eager"]


def test_simulated_ranks_have_groups_of_their_own_and_fail_together() -> None:
    def body(pairs: SimulatedGroup, alone: SimulatedGroup, x: torch.Tensor) -> list[float]:
        return [*pairs.all_gather(x, 0).tolist(), float(alone.all_reduce(x))]

    ranks = [[torch.tensor([float(rank)])] for rank in range(4)]
    layouts = ([[2, 0], [1, 3]], [[0], [1], [2], [3]])
    assert simulate(body, ranks, layouts) == [[2, 0, 0], [1, 3, 1], [2, 0, 2], [1, 3, 3]]

    def one_fails(pairs: SimulatedGroup, alone: SimulatedGroup, x: torch.Tensor) -> torch.Tensor:
        return pairs.all_reduce(x) if pairs.rank else x / "no number"  # type: ignore[operator]

    with pytest.raises(TypeError, match="unsupported operand"):
        simulate(one_fails, ranks, layouts)


def test_the_norm_of_the_suite_rounds_nothing_that_lies_between_two_steps() -> None:
    """A compiler may compute the norm differently in the last bits: no value may be near to half a step."""
    distances: list[float] = []

    def noting(x: torch.Tensor) -> torch.Tensor:
        exact = x.double()
        steps = exact / (exact.square().mean(-1, keepdim=True) + 1e-5).sqrt() * 4
        distances.append(float((steps - steps.floor() - 0.5).abs().min()))
        return original(x)

    original, suite.rms_norm = suite.rms_norm, noting
    try:
        for computation in suite.LAYERS:
            for call in range(len(computation.rows)):
                inputs = [computation.inputs(rank, call) for rank in range(2)]
                simulate(computation.body, inputs, computation.groups(2))
    finally:
        suite.rms_norm = original
    assert len(distances) == 3 * 3 * 2 * 4
    assert min(distances) > 1e-4, math.log10(min(distances))


def test_observations_are_judged_rank_by_rank() -> None:
    inputs = [SUM.inputs(rank, 0) for rank in range(2)]
    alone = Computation("a sum", SUM.body, rows=(4,))
    right = simulate(lambda *args: list(alone.body(*args)), inputs, alone.groups(2))
    seen = [Observed([right[rank]], [inputs[rank]], [right[rank]], 1) for rank in range(2)]
    assert judge(alone, seen, mode="inductor") == []
    seen[1] = Observed([[None, right[1][1]]], [inputs[1]], [[None, right[1][1]]], 1)
    assert judge(alone, seen, mode="inductor") == [
        "'a sum', call 1 of 1, rank 1: result 0 is None, expected torch.float32 of shape (4, 8)"
    ]
