from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pytest_vdist.judge import (
    Observation,
    all_reduce,
    assert_bounded,
    assert_exact,
    assert_same_on_all_ranks,
    bounded_input,
    describe_call,
    guard,
    observe,
    scattered,
)

from .simulated import in_order

BF16 = torch.bfloat16
WANT = torch.arange(12.0).reshape(4, 3).to(BF16)
GOOD = observe(WANT)
CALL = describe_call("all_reduce", shape=(4, 3), dtype=BF16, layout="strided")


def wrong(value: float = 3.5) -> Observation:
    bad = WANT.clone()
    bad[2, 1] = value
    return observe(bad)


def failure(observations: list[Observation], expected: list[torch.Tensor | None], **promises: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        assert_exact(observations, expected, call=CALL, **promises)
    return str(caught.value)


def test_a_call_is_described_by_its_name_and_parameters() -> None:
    assert CALL == "all_reduce(shape=(4, 3), dtype=bfloat16, layout=strided)"
    assert describe_call("barrier") == "barrier()"


def test_right_results_pass() -> None:
    assert_exact([GOOD, GOOD], [WANT, WANT], call=CALL)
    assert_exact([GOOD, observe(None)], [WANT, None], call=CALL)


def test_a_wrong_value_names_call_rank_index_and_both_numbers() -> None:
    assert failure([GOOD, wrong()], [WANT, WANT]) == (
        "all_reduce(shape=(4, 3), dtype=bfloat16, layout=strided): rank 1, index (2, 1): "
        "got 3.5 (0x4060), want 7.0 (0x40e0); 1 of 12 elements differ"
    )


def test_equal_findings_are_told_once_with_all_their_ranks() -> None:
    text = failure([wrong(), GOOD, wrong(), wrong(4.0)], [WANT] * 4)
    assert text.splitlines() == [
        f"{CALL}: ranks 0, 2, index (2, 1): got 3.5 (0x4060), want 7.0 (0x40e0); 1 of 12 elements differ",
        "  rank 3, index (2, 1): got 4.0 (0x4080), want 7.0 (0x40e0); 1 of 12 elements differ",
    ]


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (WANT.t(), "rank 0: got shape (3, 4), want (4, 3)"),
        (WANT.float(), "rank 0: got dtype float32, want bfloat16"),
        (None, "rank 0: got None, want a tensor of shape (4, 3)"),
    ],
    ids=["shape", "dtype", "none"],
)
def test_a_wrong_form_is_told_instead_of_values(output: torch.Tensor | None, sentence: str) -> None:
    assert failure([observe(output)], [WANT]) == f"{CALL}: {sentence}"


def test_a_tensor_where_none_is_due_is_told() -> None:
    assert failure([GOOD, GOOD], [WANT, None]) == f"{CALL}: rank 1: got a tensor of shape (4, 3), want None"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"device_type": "cpu", "input_device_type": "xpu"}, "the output is on cpu, but the input on xpu"),
        ({"canaries_intact": False}, "memory outside the input tensor was written"),
        ({"input_intact": False}, "the input was changed"),
        ({"aliases_input": True}, "the output shares memory with the input"),
    ],
    ids=["device", "canaries", "input", "alias"],
)
def test_what_only_the_rank_sees_is_told(change: dict[str, Any], sentence: str) -> None:
    assert failure([GOOD, replace(GOOD, **change)], [WANT, WANT]) == f"{CALL}: rank 1: {sentence}"


def test_wrong_values_do_not_hide_overwritten_memory() -> None:
    text = failure([replace(wrong(), canaries_intact=False, input_intact=False)], [WANT])
    assert [line.split(": ")[-1].split(";")[0] for line in text.splitlines()] == [
        "got 3.5 (0x4060), want 7.0 (0x40e0)",
        "memory outside the input tensor was written",
        "the input was changed",
    ]


def test_an_operation_in_place_changes_its_input_and_gives_it_back() -> None:
    in_place = replace(GOOD, input_intact=False, aliases_input=True)
    assert_exact([in_place], [WANT], call=CALL, in_place=True)
    text = failure([replace(in_place, aliases_input=False)], [WANT], in_place=True)
    assert text.endswith("rank 0: the output is not the input, though the operation is in place")


def test_an_empty_output_in_place_shares_no_memory_to_be_missed() -> None:
    guarded = guard(torch.zeros(0, 3), "contiguous")
    assert_exact([observe(guarded.tensor, [guarded])], [torch.zeros(0, 3)], call=CALL, in_place=True)


def test_a_group_of_one_rank_may_give_its_input_back_unchanged() -> None:
    given_back = replace(GOOD, aliases_input=True)
    assert_exact([given_back], [WANT], call=CALL, may_alias=True)
    assert "the input was changed" in failure(
        [replace(given_back, input_intact=False)], [WANT], may_alias=True
    )


def test_signs_of_zeros_count_unless_the_result_is_a_sum() -> None:
    zero = torch.tensor([0.0])
    assert_exact([observe(-zero)], [zero], call=CALL, zeros_equal=True)
    assert "got -0.0 (0x80000000), want 0.0 (0x00000000)" in failure([observe(-zero)], [zero])


def test_a_rank_too_few_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="1 ranks were observed, but 2 results are expected"):
        assert_exact([GOOD], [WANT, WANT], call=CALL)


INPUTS = [bounded_input((50, 4), BF16, rank=rank, world_size=4, seed=1) for rank in range(4)]
SUM = in_order(INPUTS, torch.float32)


def test_a_sum_within_the_bound_gives_its_margin() -> None:
    margin = assert_bounded([observe(SUM)] * 4, INPUTS, accumulate="fp32", call=CALL)
    assert 0.8 < margin <= 1.0
    assert assert_bounded([observe(SUM)] * 4, INPUTS, accumulate="native", call=CALL) < margin


def test_a_sum_out_of_bounds_fails_with_its_ratio() -> None:
    rough = observe(in_order(INPUTS, BF16))
    assert_bounded([rough] * 4, INPUTS, accumulate="native", call=CALL)
    with pytest.raises(
        AssertionError, match=r"ranks 1, 3, index .* within .* times the bound; \d+ of 200 elements"
    ):
        assert_bounded([observe(SUM), rough, observe(SUM), rough], INPUTS, accumulate="fp32", call=CALL)


def test_fewer_declared_additions_make_the_bound_tighter() -> None:
    ring = [observe(in_order(INPUTS, BF16))] * 4
    assert assert_bounded(ring, INPUTS, accumulate="native", call=CALL) < assert_bounded(
        ring, INPUTS, accumulate="native", call=CALL, additions=2
    )


def test_the_parts_of_a_reduce_scatter_are_bounded_by_their_own_addends() -> None:
    addends = scattered(INPUTS, dim=1)
    parts = [observe(in_order(each, torch.float32)) for each in addends]
    assert assert_bounded(parts, addends, accumulate="fp32", call=CALL) > 0
    with pytest.raises(AssertionError, match="rank 0, index"):
        assert_bounded([parts[1], *parts[1:]], addends, accumulate="fp32", call=CALL)


def test_a_bounded_sum_must_have_the_form_and_leave_memory_alone() -> None:
    with pytest.raises(AssertionError, match=r"rank 0: got shape \(200,\), want \(50, 4\)"):
        assert_bounded([observe(SUM.reshape(-1))], INPUTS[:1], accumulate="fp32", call=CALL)
    broken = replace(observe(SUM), canaries_intact=False)
    with pytest.raises(AssertionError, match="ranks 0, 1, 2, 3: memory outside the input tensor was written"):
        assert_bounded([broken] * 4, INPUTS, accumulate="fp32", call=CALL)


def test_ranks_that_differ_in_one_bit_are_named() -> None:
    assert_same_on_all_ranks([GOOD, GOOD], call=CALL)
    with pytest.raises(AssertionError) as caught:
        assert_same_on_all_ranks([GOOD, wrong(7.03125), GOOD, wrong(7.03125)], call=CALL)
    assert str(caught.value) == (
        f"{CALL}: ranks 1, 3: differs from rank 0 at index (2, 1): got 7.03125 (0x40e1), want 7.0 (0x40e0); "
        "1 of 12 elements differ"
    )


def test_ranks_without_a_value_are_not_the_same() -> None:
    with pytest.raises(AssertionError, match="rank 0: got None, want a tensor"):
        assert_same_on_all_ranks([observe(None), observe(None)], call=CALL)
    with pytest.raises(AssertionError, match=r"rank 1: got None, want a tensor of shape \(4, 3\)"):
        assert_same_on_all_ranks([GOOD, observe(None)], call=CALL)


def test_the_helpers_hide_their_frames_from_the_report() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_exact([wrong()], [WANT], call=CALL)
    frames = [entry.frame.f_locals for entry in caught.traceback[1:]]
    assert frames
    assert all(local.get("__tracebackhide__") for local in frames)


def test_all_reduce_of_exact_inputs_is_judged_end_to_end() -> None:
    inputs = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])]
    assert_exact([observe(inputs[0] + inputs[1])] * 2, list(all_reduce(inputs)), call=CALL)
