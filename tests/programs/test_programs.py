"""Programs without ranks: what is drawn is valid, what is known of it is what the oracle works out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_vdist.program_run import search
from pytest_vdist.programs.explanation import describe, headline
from pytest_vdist.programs.forms import InvalidProgramError, forms_of
from pytest_vdist.programs.judgement import Divergence, divergence_of
from pytest_vdist.programs.model import Call, Groups, Input, Operand, Program
from pytest_vdist.programs.oracle import ExactTensor, Oracle, Refusal, Value, Within
from pytest_vdist.programs.records import (
    Report,
    Seen,
    SeenError,
    SeenTensor,
    SeenValue,
    seen_tensor,
    seen_value,
)
from pytest_vdist.programs.reduction import part, reduced
from pytest_vdist.programs.scope import Scope
from pytest_vdist.strategies import partitions, programs, python_objects, tensor_dicts, tensors

WORLD = Groups(((0, 1),))
SUM = Program(2, (WORLD,), (Input((2,)),), (Call("all_reduce", 0, (Operand("x0"),)),))
SCOPES = st.sampled_from([Scope(size) for size in (1, 2, 3, 4)])


def right_reports(program: Program) -> list[Report]:
    """Return what ranks report that do what the oracle says."""
    expectations = Oracle(program).expectations()

    def seen(expected: object) -> Seen:
        if isinstance(expected, ExactTensor):
            return seen_tensor(expected.tensor)
        if isinstance(expected, Within):
            return seen_tensor(expected.bound.total.high.to(expected.dtype))
        if isinstance(expected, Refusal):
            return SeenError("ValueError", "no")
        if isinstance(expected, Value):
            found = seen_value(expected.value)
            return found if isinstance(found, SeenValue) else SeenValue(found)
        return None

    ranks = range(program.world_size)
    return [Report(tuple(seen(call[rank]) for call in expectations), (), "cpu") for rank in ranks]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_oracle_and_the_forms_agree_on_every_drawn_program(data: st.DataObject) -> None:
    program = data.draw(SCOPES.flatmap(programs))
    oracle = Oracle(program)
    oracle.expectations()
    for name, form in forms_of(program).items():
        if form.exact and name.startswith("y"):
            shapes = tuple(None if each is None else tuple(each.shape) for each in oracle.tensors(name))
            assert shapes == form.shapes, name
    assert divergence_of(program, right_reports(program)) is None
    assert Program.from_json(program.to_json()) == program


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_part_of_a_program_is_a_program(data: st.DataObject) -> None:
    program = data.draw(SCOPES.flatmap(programs))
    numbers = data.draw(st.sets(st.integers(0, len(program.calls) - 1), min_size=1))
    smaller = part(program, numbers)
    assert 1 <= len(smaller.calls) <= len(program.calls)
    Oracle(smaller).expectations()
    assert part(program, range(len(program.calls))).calls == program.calls


@settings(max_examples=20, deadline=None)
@given(programs(Scope(2)))
def test_a_failure_that_needs_two_calls_is_cut_down_to_them(program: Program) -> None:
    def fails(candidate: Program) -> bool:
        operations = [call.operation for call in candidate.calls]
        return "all_reduce" in operations and "barrier" in operations

    kinds = [call.operation for call in reduced(program, fails).calls]
    if fails(program) and "isend_object" not in kinds:
        assert len(kinds) <= 4
    if not fails(program):
        assert reduced(program, fails) is program


def test_the_same_seed_gives_the_same_programs() -> None:
    def drawn(seed: int) -> list[Program]:
        seen: list[Program] = []
        search(seen.append, Scope(3), 20, seed)
        return seen

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)
    lengths = sorted(len(program.calls) for program in drawn(5))
    assert lengths[len(lengths) // 2] >= 4


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (Call("all_gather", 0, (Operand("x0"),), dim=1), r"shape \(2,\) has no dimension 1"),
        (Call("reduce_scatter", 0, (Operand("x1"),)), "a dimension of 3 has no 2 equal parts"),
        (Call("all_reduce", 0, (Operand("x2"),)), "bits of float32 are not summed"),
        (Call("all_reduce", 0, (Operand("y9"),)), "'y9'"),
        (Call("all_reduce", 0, (Operand("x0"),), wrong="destroyed"), "group 0 is destroyed or not"),
    ],
)
def test_a_program_without_one_right_result_is_refused(call: Call, reason: str) -> None:
    inputs = (Input((2,)), Input((3,)), Input((2,), values="bits"))
    with pytest.raises(InvalidProgramError, match=rf"call 0, \w+: .*{reason}"):
        Oracle(Program(2, (WORLD,), inputs, (call,)))


def test_sums_stay_exact_however_often_they_are_added_up() -> None:
    calls = [Call("all_reduce", 0, (Operand("x0"),))]
    calls += [Call("all_reduce", 0, (Operand(f"y{n}"),)) for n in range(7)]
    program = Program(2, (WORLD,), (Input((2,), "bfloat16"),), tuple(calls[:6]))
    Oracle(program).expectations()
    with pytest.raises(
        InvalidProgramError, match="call 6, all_reduce: the sum of 2 such tensors is not exact"
    ):
        Oracle(replace(program, calls=tuple(calls)))


def wrong_bit(seen: Seen) -> Seen:
    assert isinstance(seen, SeenTensor)
    return seen._replace(data=bytes([seen.data[0] ^ 1]) + seen.data[1:])


def test_the_first_divergent_value_is_named_with_rank_call_and_element() -> None:
    reports = right_reports(SUM)
    reports[1] = replace(reports[1], seen=(wrong_bit(reports[1].seen[0]),))
    found = divergence_of(SUM, reports)
    assert found is not None
    assert (found.call, found.rank) == (0, 1)
    assert headline(SUM, found).startswith("rank 1, call 0, y0 = world.all_reduce(x0): index (0,): got ")


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        (None, "took no part in it"),
        (SeenValue(None), "got None, want a tensor"),
        (SeenError("ValueError", "no"), "raised ValueError: no"),
        (seen_tensor(torch.zeros(3)), "got shape (3,), want (2,)"),
        (seen_tensor(torch.zeros(2, dtype=torch.int32)), "got dtype int32, want float32"),
    ],
)
def test_what_is_no_such_tensor_is_told_apart(seen: Seen, problem: str) -> None:
    reports = right_reports(SUM)
    reports[0] = replace(reports[0], seen=(seen,))
    assert divergence_of(SUM, reports) == Divergence(0, 0, problem)


def test_damage_is_reported_where_all_values_are_right() -> None:
    reports = right_reports(SUM)
    reports[1] = replace(reports[1], damage=("input x0 was changed later",))
    assert divergence_of(SUM, reports) == Divergence(None, 1, "input x0 was changed later")


def test_the_text_of_a_program_shows_what_each_rank_does() -> None:
    program = Program(
        2,
        (WORLD, Groups(((1, 0),))),
        (Input((1,)), Input((3,), "int64")),
        (
            Call("send", 1, (Operand("x1"),)),
            Call("all_reduce", 0, (Operand("x0", "strided"),)),
            Call("barrier"),
        ),
    )
    text = describe(program)
    first, _, second = text.partition("rank 1:\n")
    assert "g1 = the group of this rank out of [[1, 0]]\nrank 0:\n" in first
    assert "    y0 = g1.recv((3,), torch.int64, 0)\n" in first
    assert "    y1 = world.all_reduce(strided(x0))\n    world.barrier()" in second
    assert "    g1.send(x1, 1)\n" in second


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_other_strategies_draw_what_they_say(data: st.DataObject) -> None:
    partition = data.draw(partitions(5))
    assert sorted(rank for ranks in partition for rank in ranks) == [0, 1, 2, 3, 4]
    tensor = data.draw(tensors([torch.bfloat16, torch.int32], special=False))
    assert tensor.dtype in {torch.bfloat16, torch.int32}
    assert bool(torch.isfinite(tensor).all())
    assert all(isinstance(key, str) for key in data.draw(tensor_dicts()))
    value = data.draw(python_objects())
    assert value == value  # noqa: PLR0124 - no NaN among them
