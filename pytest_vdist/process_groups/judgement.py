"""Calls made by the ranks of a group, and judged: values, the memory around them, and refusals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist

from pytest_vdist.judge import (
    GuardedTensor,
    Mismatch,
    Observation,
    assert_exact,
    assert_same_on_all_ranks,
    compare_bounded,
    guard,
    movement_input,
)

from . import _compat, oracle
from .calls import Call, flat

_OTHER_DATA = 987654
Outcome = Observation | str
"""What a rank observed, or the text of the error with which it was refused."""


class GroupRun(Protocol):
    """Runs `function(group, device, *args)` on every rank, and returns the results by global rank."""

    def __call__(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        world_size: int,
        group_ranks: list[list[int]] | None = ...,
    ) -> list[Any]: ...


@dataclass(frozen=True, eq=False)
class Prepared:
    """The tensors of one call on one rank, inside poisoned memory."""

    call: Call
    inputs: list[GuardedTensor]
    outputs: list[GuardedTensor]

    @classmethod
    def of(cls, group: dist.ProcessGroup, device: torch.device, call: Call) -> Prepared:
        rank, ranks = dist.get_rank(group), dist.get_world_size(group)
        inputs = [guard(each, call.layout, device) for each in call.inputs(rank, ranks)]
        outputs = [
            guard(movement_input(shape, call.dtype, rank=rank, seed=_OTHER_DATA), call.output_layout, device)
            for shape in call.outputs(rank, ranks)
        ]
        return cls(call, inputs, outputs)

    def start(self, group: dist.ProcessGroup, *, async_op: bool = False) -> Any:
        """Make the call and return its handle if `async_op`. An exception gets the call as a note."""
        inputs, outputs = ([each.tensor for each in all_] for all_ in (self.inputs, self.outputs))
        try:
            return self.call.make(group, inputs, outputs, async_op=async_op)
        except Exception as error:
            error.add_note(f"raised by {self.call}")
            raise

    def written(self) -> list[torch.Tensor]:
        return [each.tensor for each in (self.inputs if self.call.form.in_place else self.outputs)]

    def observe(self) -> Observation:
        """Take down what is there now that the call has ended; what was written is one flat tensor."""
        written, in_place = self.written(), self.call.form.in_place
        value = flat([tensor.cpu() for tensor in written]) if written else None
        return Observation(
            value=value,
            dtype=self.call.dtype if written else None,
            shape=tuple(value.shape) if value is not None else None,
            device_type=written[0].device.type if written else None,
            input_device_type=written[0].device.type if written else None,
            input_intact=in_place or all(each.values_intact() for each in self.inputs),
            canaries_intact=all(each.canaries_intact() for each in (*self.inputs, *self.outputs)),
            aliases_input=in_place,
        )


def perform(
    group: dist.ProcessGroup, device: torch.device, calls: Sequence[Call], may_refuse: Collection[int] = ()
) -> list[Outcome]:
    """Make the calls, one after the other, in a rank.

    Those whose number is in `may_refuse` may raise an Exception, whose text is their outcome.
    """
    outcomes: list[Outcome] = []
    for number, call in enumerate(calls):
        prepared = Prepared.of(group, device, call)
        try:
            prepared.start(group)
        except Exception as error:
            if number not in may_refuse:
                raise
            outcomes.append(str(error) or type(error).__name__)
            continue
        outcomes.append(prepared.observe())
    return outcomes


def perform_coalesced(
    group: dist.ProcessGroup, device: torch.device, calls: Sequence[Call], *, async_ops: bool
) -> list[Observation]:
    """Make calls of one kind as one, in a rank."""
    prepared = [Prepared.of(group, device, call) for call in calls]
    with _compat.coalescing(group, async_ops=async_ops) as block:
        for each in prepared:
            each.start(group, async_op=async_ops)
    if async_ops:
        block.wait()
    return [each.observe() for each in prepared]


def finish(device: torch.device) -> None:
    """Wait until the device has done what was started: handles of devices wait for streams, not for these."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


def judge(call: Call, observations: Sequence[Observation]) -> None:
    """Assert that one group's observations, by rank in the group, are right.

    What an operation in place leaves on ranks that get no result is nobody's: it is not looked at.
    """
    __tracebackhide__ = True
    results = call.results(len(observations))
    if call.form.in_place:
        observations = [
            each if result is not None else _nothing(each)
            for each, result in zip(observations, results, strict=True)
        ]
    averages = call.form.reducing and call.reduction == "avg"
    if averages:
        _assert_average(call, observations, results)
    else:
        expected = [None if result is None else _total(call, result) for result in results]
        assert_exact(
            observations,
            expected,
            call=str(call),
            zeros_equal=call.form.reducing,
            in_place=call.form.in_place,
        )
    if call.operation == "all_reduce":
        assert_same_on_all_ranks(observations, call=str(call))


def judge_outcomes(call: Call, outcomes: Sequence[Outcome]) -> None:
    """Assert that all ranks of a group were refused, or that none was and all are right."""
    __tracebackhide__ = True
    refused = {rank: outcome for rank, outcome in enumerate(outcomes) if isinstance(outcome, str)}
    if not refused:
        judge(call, [outcome for outcome in outcomes if isinstance(outcome, Observation)])
    elif len(refused) < len(outcomes):
        rank, error = next(iter(refused.items()))
        done = [rank for rank in range(len(outcomes)) if rank not in refused]
        raise AssertionError(
            f"{call}: refused on rank(s) {sorted(refused)} and done on rank(s) {done}; rank {rank}: {error}"
        )


def assert_calls(
    run: GroupRun,
    calls: Sequence[Call],
    *,
    world_size: int,
    group_ranks: list[list[int]] | None = None,
    limits: Iterable[str] = (),
    may_refuse: bool = False,
) -> None:
    """Make the calls on the ranks, in one dispatch, and judge each of them in each group.

    A call that needs one of the declared `limits` may be refused, and with `may_refuse` every call may: by
    all ranks of the group, or it is right on all. Every group has other data.
    """
    __tracebackhide__ = True
    if not calls:
        raise ValueError("there is no call to judge: a test without a call would pass whatever happens")
    groups = [sorted(ranks) for ranks in group_ranks or [list(range(world_size))]]
    declared = set(limits)
    refusable = [n for n, call in enumerate(calls) if may_refuse or declared & {*call.needs}]
    by_group = [
        [call.with_other_values(number * len(calls) + index) for index, call in enumerate(calls)]
        for number in range(len(groups))
    ]
    by_rank = run(
        perform_in_own_group, groups, by_group, refusable, world_size=world_size, group_ranks=group_ranks
    )
    for ranks, own_calls in zip(groups, by_group, strict=True):
        for index, call in enumerate(own_calls):
            judge_outcomes(call, [by_rank[rank][index] for rank in ranks])


def perform_in_own_group(
    group: dist.ProcessGroup,
    device: torch.device,
    groups: list[list[int]],
    by_group: Sequence[Sequence[Call]],
    may_refuse: Collection[int],
) -> list[Outcome]:
    """Perform the calls of this rank's group, in a rank."""
    own = next(calls for calls, ranks in zip(by_group, groups, strict=True) if dist.get_rank() in ranks)
    return perform(group, device, own, may_refuse)


def _total(call: Call, result: Sequence[torch.Tensor]) -> torch.Tensor:
    if call.form.reducing:
        return oracle.reduced([each.flatten() for each in result], call.reduction)
    return flat(result)


def _nothing(observation: Observation) -> Observation:
    return Observation(
        None, None, None, None, None, input_intact=True, canaries_intact=observation.canaries_intact,
        aliases_input=False,
    )  # fmt: skip


def _assert_average(
    call: Call, observations: Sequence[Observation], results: Sequence[Sequence[torch.Tensor] | None]
) -> None:
    __tracebackhide__ = True
    for rank, (observation, addends) in enumerate(zip(observations, results, strict=True)):
        if addends is None:
            continue
        assert observation.value is not None, f"{call}: rank {rank} got nothing"
        want, limit = oracle.average([each.flatten() for each in addends])
        outcome = compare_bounded(observation.value, want, limit, rank=rank)
        assert not isinstance(outcome, Mismatch), f"{call}: rank {rank}: {outcome}"
        assert observation.canaries_intact, f"{call}: rank {rank}: memory outside the tensors was written"
        assert observation.input_intact, f"{call}: rank {rank}: the input was changed"
