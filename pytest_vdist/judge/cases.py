"""One call of one operation as data: what each rank passes, how it runs there, how it is judged here.

A suite test makes a list of cases, has them performed in one dispatch, and judges each against the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from . import oracle
from .assertions import assert_bounded, assert_exact, assert_same_on_all_ranks, describe_call
from .buffers import GuardedTensor, aliases, fit_values, guard
from .formats import contiguous_copy, same_bits
from .inputs import bounded_input, exact_sum_input, movement_input, one_hot_input
from .observation import Observation, observe

REDUCTIONS = frozenset({"all_reduce", "reduce_scatter", "reduce_scatterv"})
_IN_PLACE = frozenset({"broadcast"})
_RAGGED = frozenset({"all_gatherv"})


Through = Callable[[Callable[[], Any]], Any]
"""Makes the call that it gets, and returns what that returns."""


class Group(Protocol):
    """What a case needs of a coordinator, besides the operation itself.

    One that stands before a coordinator which works in place, and copies inputs for it, has that as
    `in_place_coordinator`, and the names of these operations as `in_place`.
    """

    rank: int
    rank_in_group: int
    world_size: int
    device: torch.device


class Run(Protocol):
    """Runs `function(coordinator, *args)` on every rank, and returns the results by global rank."""

    def __call__(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        world_size: int,
        group_ranks: list[list[int]] | None = ...,
    ) -> list[Any]: ...


@dataclass(frozen=True)
class Case:
    """One call of `operation` by every rank of a group.

    `values` names the inputs: "exact" and "bounded" for sums, "movement" for bit patterns, or the rank in the
    group, as text, that alone is not zero (see `one_hot_input`). `arguments` are those after the tensor. For
    all_gatherv with sizes, dimension `dim` of `shape` is each rank's own size. A tuple as `layout` deals its
    layouts out to the ranks in turn; sums stay exact if either all of them or none is "expanded".
    """

    operation: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    arguments: Mapping[str, Any] = field(default_factory=dict)
    layout: str | tuple[str, ...] = "contiguous"
    values: str = "exact"
    seed: int = 0

    def input(self, rank: int, world_size: int) -> torch.Tensor:
        """Return what that rank of the group passes, as a contiguous CPU tensor."""
        shape = self._shape_at(rank)
        if self.values == "movement":
            made = movement_input(shape, self.dtype, rank=rank, seed=self.seed)
        elif self.values == "exact":
            made = exact_sum_input(shape, self.dtype, rank=rank, world_size=world_size, seed=self.seed)
        elif self.values == "bounded":
            made = bounded_input(shape, self.dtype, rank=rank, world_size=world_size, seed=self.seed)
        else:
            hot = int(self.values)
            made = one_hot_input(
                shape, self.dtype, rank=rank, world_size=world_size, seed=self.seed, hot_rank=hot
            )
        return fit_values(made, self.layout_at(rank))

    def inputs(self, world_size: int) -> list[torch.Tensor]:
        return [self.input(rank, world_size) for rank in range(world_size)]

    def layout_at(self, rank: int) -> str:
        return self.layout if isinstance(self.layout, str) else self.layout[rank % len(self.layout)]

    def with_other_values(self, number: int) -> Case:
        """Return the same call with other data, by number; 0 stands for the case itself."""
        return replace(self, seed=self.seed + number)

    def expected(self, world_size: int) -> Sequence[torch.Tensor | None]:
        """Return the oracle's results, by rank in the group."""
        compute: Callable[..., Sequence[torch.Tensor | None]] = getattr(oracle, self.operation)
        return compute(self.inputs(world_size), **self.arguments)

    def __str__(self) -> str:
        return describe_call(
            self.operation,
            shape=self.shape,
            dtype=self.dtype,
            layout=self.layout,
            values=self.values,
            **self.arguments,
        )

    def _shape_at(self, rank: int) -> tuple[int, ...]:
        sizes = self.arguments.get("sizes")
        if self.operation not in _RAGGED or sizes is None:
            return self.shape
        shape = list(self.shape)
        shape[self.arguments.get("dim", 0)] = sizes[rank]
        return tuple(shape)


def directly(call: Callable[[], Any]) -> Any:
    """Make a call with nothing set around it."""
    return call()


def call_of(group: Group, case: Case, tensor: torch.Tensor) -> Any:
    """Make the case's call, in a rank, on `tensor`. An exception gets the case as a note."""
    judged = getattr(group, "in_place_coordinator", group)
    try:
        return getattr(judged, case.operation)(tensor, **case.arguments)
    except Exception as error:
        error.add_note(f"raised by {case}")
        raise


def perform(group: Group, case: Case, through: Through = directly) -> Observation:
    """Make this rank's call, in a rank, `through` what is to be around it.

    An exception gets the case as a note.
    """
    guarded = _guarded_input(group, case)
    in_place = _is_declared_in_place(group, case, guarded.tensor)
    output = through(lambda: call_of(group, case, guarded.tensor))
    return observe(output, [guarded], in_place=in_place)


def perform_all(group: Group, cases: Sequence[Case], through: Through = directly) -> list[Observation]:
    """Perform the cases one after the other, in a rank."""
    return [perform(group, case, through) for case in cases]


def perform_in_own_group(
    group: Group,
    cases_by_group: Sequence[Sequence[Case]],
    group_ranks: Sequence[Sequence[int]],
    through: Through = directly,
) -> list[Observation]:
    """Perform the cases of this rank's group, in a rank."""
    own = next(cases for cases, ranks in zip(cases_by_group, group_ranks, strict=True) if group.rank in ranks)
    return perform_all(group, own, through)


def shared_memory(group: Group, cases: Sequence[Case]) -> list[str]:
    """Perform the cases twice and keep all results, in a rank. Say what shares memory or changed later.

    Allowed is a result that shares memory with its own input where the operation is in place or the group
    has one rank.
    """
    calls = [case.with_other_values(turn) for turn in (0, 1) for case in cases]
    inputs = [_guarded_input(group, case) for case in calls]
    results: dict[int, torch.Tensor] = {}
    copies: dict[int, torch.Tensor] = {}
    for number, (case, guarded) in enumerate(zip(calls, inputs, strict=True)):
        result = call_of(group, case, guarded.tensor)
        if result is not None:
            results[number], copies[number] = result, contiguous_copy(result)
    findings = []
    for number, result in results.items():
        case = calls[number]
        partners = {f"the result of call {i}": results[i] for i in results if i < number}
        partners |= {f"the input of call {i}": inputs[i].tensor for i in range(len(calls))}
        declared = _is_declared_in_place(group, case, inputs[number].tensor)
        if case.operation in _IN_PLACE or declared or group.world_size == 1:
            del partners[f"the input of call {number}"]
        found = [f"shares memory with {name}" for name, other in partners.items() if aliases(result, other)]
        if not same_bits(result, copies[number]):
            found.append("was changed by a later call")
        findings += [f"the result of call {number}, {case}, {each}" for each in found]
    return findings


def judge(case: Case, observations: Sequence[Observation], *, accumulate: str = "native") -> float:
    """Assert that one group's observations, by rank in the group, are those of a right implementation.

    `accumulate` is the declared accumulator, for "bounded" values. Results must be identical on all ranks
    where all ranks get the same. A group of one rank may return its input. Returns the margin: the largest
    error / bound, 0.0 where equality is demanded. Raises AssertionError that names call, rank and element.
    """
    __tracebackhide__ = True
    alone = len(observations) == 1
    if case.values == "bounded":
        margin = _judge_bounded(case, observations, accumulate, may_alias=alone)
    else:
        margin = 0.0
        assert_exact(
            observations,
            case.expected(len(observations)),
            call=str(case),
            zeros_equal=case.operation in REDUCTIONS,
            in_place=case.operation in _IN_PLACE,
            may_alias=alone,
        )
    if case.operation == "all_reduce":
        assert_same_on_all_ranks(observations, call=str(case))
    return margin


def assert_cases(
    run: Run,
    cases: Sequence[Case],
    *,
    world_size: int,
    group_ranks: list[list[int]] | None = None,
    accumulate: Mapping[str, str] | None = None,
    through: Through = directly,
) -> float:
    """Perform the cases on the ranks, in one dispatch, and judge each of them in each group.

    Every call of every group has other data, so that stale memory or another group's data is no right result.
    `accumulate` maps names of dtypes to declared accumulators; calls are made `through` what is to be around
    them. Returns the largest margin.
    """
    __tracebackhide__ = True
    _require(cases)
    groups = group_ranks or [list(range(world_size))]
    cases_by_group = [
        [case.with_other_values(number * len(cases) + index) for index, case in enumerate(cases)]
        for number in range(len(groups))
    ]
    by_rank = run(
        perform_in_own_group, cases_by_group, groups, through, world_size=world_size, group_ranks=group_ranks
    )
    margins = [0.0]
    for group, own_cases in zip(groups, cases_by_group, strict=True):
        for index, case in enumerate(own_cases):
            observations = [by_rank[rank][index] for rank in group]
            declared = (accumulate or {}).get(str(case.dtype).removeprefix("torch."), "native")
            margins.append(judge(case, observations, accumulate=declared))
    return max(margins)


def assert_results_stay_apart(run: Run, cases: Sequence[Case], *, world_size: int) -> None:
    """Assert that no result shares memory with an input or another result, and that none changes later."""
    __tracebackhide__ = True
    _require(cases)
    by_rank = run(shared_memory, list(cases), world_size=world_size)
    findings = [f"rank {rank}: {finding}" for rank, found in enumerate(by_rank) for finding in found]
    if findings:
        raise AssertionError("\n".join(findings))


def _require(cases: Sequence[Case]) -> None:
    if not cases:
        raise ValueError("there is no case to judge: a test without a case would pass whatever happens")


def _guarded_input(group: Group, case: Case) -> GuardedTensor:
    rank = group.rank_in_group
    return guard(case.input(rank, group.world_size), case.layout_at(rank), group.device)


def _is_declared_in_place(group: Group, case: Case, tensor: torch.Tensor) -> bool:
    """Tell whether the operation is declared to write its result into this tensor."""
    declared = case.operation in getattr(group, "in_place", ())
    return declared and group.world_size > 1 and 0 not in tensor.stride()


def _judge_bounded(
    case: Case, observations: Sequence[Observation], accumulate: str, *, may_alias: bool
) -> float:
    __tracebackhide__ = True
    inputs = case.inputs(len(observations))
    addends: Sequence[Any] = inputs
    if case.operation != "all_reduce":
        addends = oracle.scattered(inputs, **case.arguments)
    return assert_bounded(observations, addends, accumulate=accumulate, call=str(case), may_alias=may_alias)
