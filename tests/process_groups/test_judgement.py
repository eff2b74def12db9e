"""The judge of calls in process groups, on observations that are made up: no ranks are started."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from pytest_vdist.judge import Observation
from pytest_vdist.process_groups.calls import OPERATIONS, Call, flat
from pytest_vdist.process_groups.judgement import Outcome, assert_calls, judge, judge_outcomes
from pytest_vdist.process_groups.oracle import REDUCTIONS, addend, average, has_reduction, reduced

RANKS = 3


def observation(value: torch.Tensor | None, call: Call) -> Observation:
    device = None if value is None else "cpu"
    return Observation(
        value,
        None if value is None else call.dtype,
        None if value is None else tuple(value.shape),
        device,
        device,
        input_intact=True,
        canaries_intact=True,
        aliases_input=call.form.in_place,
    )


def right(call: Call) -> list[Observation]:
    """Return what the ranks of a right group observe."""
    results = call.results(RANKS)
    values = [
        None
        if result is None
        else reduced([each.flatten() for each in result], call.reduction)
        if call.form.reducing
        else flat(result)
        for result in results
    ]
    return [observation(value, call) for value in values]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("parts", ["equal", "unequal"])
def test_what_is_right_passes_and_one_wrong_bit_does_not(operation: str, parts: str) -> None:
    call = Call(operation, (2, 3), torch.int32, parts=parts, root=1)
    observations = right(call)
    judge(call, observations)
    rank = next(rank for rank, each in enumerate(observations) if each.value is not None)
    value = observations[rank].value
    assert value is not None
    wrong = value.clone()
    wrong[-1] ^= 1
    observations[rank] = replace(observations[rank], value=wrong)
    with pytest.raises(
        AssertionError, match=rf"{operation}\(shape=\(2, 3\), dtype=int32.*rank {rank}, index"
    ):
        judge(call, observations)


def test_parts_go_where_a_hand_written_table_says() -> None:
    call = Call("all_to_all_single", (1,), torch.uint8, parts="unequal")
    inputs = [call.inputs(rank, RANKS)[0].tolist() for rank in range(RANKS)]
    assert [len(each) for each in inputs] == [0 + 1 + 2, 2 + 0 + 1, 1 + 2 + 0]
    wanted = [
        inputs[1][:2] + inputs[2][:1],
        inputs[0][:1] + inputs[2][1:],
        inputs[0][1:] + inputs[1][2:],
    ]
    results = call.results(RANKS)
    assert [flat(result).tolist() for result in results if result is not None] == wanted


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8, torch.uint8])
def test_reductions_are_exact_in_any_order(reduction: str, dtype: torch.dtype) -> None:
    if not has_reduction(dtype, reduction) or reduction == "avg":
        return
    addends = [addend((257,), dtype, reduction, rank=rank, ranks=RANKS, seed=1) for rank in range(RANKS)]
    assert len({tuple(each.tolist()) for each in addends}) == RANKS, "the ranks' addends differ"
    forward, backward = reduced(addends, reduction), reduced(addends[::-1], reduction)
    assert torch.equal(forward, backward)
    assert forward.dtype == dtype
    assert len(set(forward.tolist())) > 1


def test_an_average_may_round_and_may_not_be_the_sum() -> None:
    call = Call("all_reduce", (64,), torch.float16, reduction="avg")
    addends = [call.inputs(rank, RANKS)[0] for rank in range(RANKS)]
    want, limit = average(addends)
    rounded = (want.high + want.low).to(torch.float16)
    judge(call, [observation(rounded, call)] * RANKS)
    assert (limit < 0.01 * torch.stack(addends).abs().sum(dim=0)).all()
    total = reduced(addends, "sum")
    with pytest.raises(AssertionError, match=r"all_reduce\(.*op=avg\): rank 0: index .* times the bound"):
        judge(call, [observation(total, call)] * RANKS)


def test_memory_that_was_written_beside_the_tensors_is_reported() -> None:
    call = Call("gather", (2, 3), root=1)
    observations = right(call)
    observations[0] = replace(observations[0], canaries_intact=False)
    with pytest.raises(AssertionError, match="rank 0: memory outside the input tensor was written"):
        judge(call, observations)


def test_all_ranks_are_refused_or_none() -> None:
    call = Call("all_to_all", (2, 3))
    judge_outcomes(call, ["no alltoall"] * RANKS)
    judge_outcomes(call, right(call))
    mixed: list[Outcome] = [*right(call)[:2], "no alltoall"]
    message = "refused on rank(s) [2] and done on rank(s) [0, 1]; rank 2: no alltoall"
    with pytest.raises(AssertionError, match=re.escape(message)):
        judge_outcomes(call, mixed)


def test_no_call_is_an_error_and_not_a_pass() -> None:
    with pytest.raises(ValueError, match="there is no call to judge"):
        assert_calls(lambda *_, **__: [], [], world_size=2)


def test_a_call_needs_its_operation_its_parts_and_its_reduction() -> None:
    assert Call("all_gather", (2,), parts="unequal").needs == ("all_gather", "unequal", "all_gather:unequal")
    assert Call("reduce", (2,), reduction="band").needs == ("reduce", "band", "reduce:band")
    assert Call("broadcast", (2,)).needs == ("broadcast",)
