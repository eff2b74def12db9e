"""The chapter `performance`: what it measures, and that fast and wrong is wrong."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ET

import pytest

from pytest_vdist.performance import Message, messages

pytestmark = pytest.mark.usefixtures("plain_sessions")
CHAPTER = ("--pyargs", "pytest_vdist.suites.performance", "--vdist-backend=cpu", "--vdist-world-sizes=2,3")


def test_all_sizes_are_those_of_nccl_tests_as_far_as_memory_is_a_ranks_own() -> None:
    sizes = [each.size for each in messages(full=True, on_cpu=False)]
    assert (sizes[0], sizes[-1], len(sizes)) == (8, 1 << 30, 10)
    assert [each.size for each in messages(full=True, on_cpu=True)] == sizes[:8]
    assert messages(full=False, on_cpu=True) == [Message(8, 5, 3), Message(65536, 5, 3)]
    assert messages(full=False, on_cpu=False) == [Message(8, 5, 3), Message(65536, 5, 3)]


def test_short_messages_are_timed_in_more_rounds_since_they_differ_by_microseconds() -> None:
    alone, cpu = (messages(full=True, on_cpu=on_cpu) for on_cpu in (False, True))
    assert (alone[0], cpu[0]) == (Message(8, 50, 15), Message(8, 50, 15))
    assert alone[-3:] == [Message(1 << 24, 50, 15), Message(1 << 27, 8, 5), Message(1 << 30, 2, 5)]
    assert cpu[-1] == Message(1 << 24, 2, 5)


def test_rows_say_what_nccl_tests_would_say(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(*CHAPTER, "--junitxml=j.xml", "-rP", "-k", "all_reduce or gather")
    result.assert_outcomes(passed=4, deselected=4)
    result.stdout.fnmatch_lines(["collective all_reduce, bytes 12, ranks 3, latency_us *, busbw *"])
    found = ET.parse(pytester.path / "j.xml").iterfind(".//property[@name='vdist.bandwidth']")
    rows = [row for each in found for row in ast.literal_eval(each.attrib["value"])]
    assert {(row["collective"], row["ranks"]) for row in rows} == {
        (name, ranks) for name in ("all_reduce", "all_gather") for ranks in (2, 3)
    }
    factors = {("all_reduce", 2): 1.0, ("all_reduce", 3): 4 / 3}
    factors |= {("all_gather", 2): 1 / 2, ("all_gather", 3): 2 / 3}
    for row in rows:
        assert row["bytes"] in {8, 12, 65536, 65532}
        assert row["latency_us"] > 0 < row["bare_latency_us"]
        assert row["operator_latency_us"] > 0
        assert row["algbw"] == pytest.approx(row["bytes"] / row["latency_us"] / 1e3, rel=1e-3)
        assert row["busbw"] == pytest.approx(row["algbw"] * factors[row["collective"], row["ranks"]])


@pytest.mark.usefixtures("simdev_as_built")
@pytest.mark.parametrize(("devices", "sharing"), [("1", "ranks"), ("2", "runs")])
def test_ranks_and_runs_that_share_a_device_are_judged_and_nothing_is_told_of_their_speed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, devices: str, sharing: str
) -> None:
    monkeypatch.setenv("SIMDEV_COUNT", devices)
    chapter = ("--pyargs", "pytest_vdist.suites.performance", "-k", "all_reduce", "--junitxml=j.xml", "-rP")
    shared = ("--vdist-backend=simdev", f"--vdist-{sharing}-per-device=2", "--vdist-world-sizes=2")
    result = pytester.runpytest_subprocess(*chapter, *shared, "--vdist-performance=full")
    result.assert_outcomes(passed=1, deselected=3)
    result.stdout.no_fnmatch_line("*latency*")
    properties = {each.attrib["name"] for each in ET.parse(pytester.path / "j.xml").iterfind(".//property")}
    assert ("vdist.ranks_per_device" in properties) == (sharing == "ranks")
    assert "vdist.bandwidth" not in properties


@pytest.mark.parametrize(
    ("mutant", "way"),
    [("sum_is_zero", "the coordinator"), ("the_operator_returns_its_input", "the operator")],
)
def test_a_wrong_result_fails_however_fast_it_is(mutant: str, way: str, pytester: pytest.Pytester) -> None:
    wrong = f"--vdist-impl=pytest_vdist.mutation.implementations:{mutant}"
    result = pytester.runpytest_subprocess(*CHAPTER, wrong, "-k", "2 and all_reduce")
    result.assert_outcomes(failed=1, deselected=7)
    result.stdout.fnmatch_lines([f"*AssertionError: all_reduce of 2 elements by {way}: index (*"])


IN_PLACE = """
import dataclasses
import torch
from pytest_vdist.implementations.reference import ReferenceImplementation
from pytest_vdist.reference_impl import names

@torch.library.custom_op("in_place_test::all_reduce_", mutates_args={"x"})
def all_reduce_(x: torch.Tensor, group_name: str) -> None:
    x.copy_(names.find(group_name).all_reduce(x))

class InPlace(ReferenceImplementation):
    def capabilities(self, device_type):
        operators = {"all_reduce": "in_place_test::all_reduce_"}
        return dataclasses.replace(super().capabilities(device_type), operators=operators)
"""


def test_an_operator_that_would_sum_its_own_results_again_is_not_measured(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(in_place=IN_PLACE)
    result = pytester.runpytest_subprocess(
        *CHAPTER, "--vdist-impl=in_place.py:InPlace", "-k", "2 and all_reduce", "-rP"
    )
    result.assert_outcomes(passed=1, deselected=7)
    result.stdout.fnmatch_lines(["collective all_reduce, bytes 8, *, operator_latency_us None, *"])
