"""Which tests run: those of a profile, and every one in one shard, the same wherever it is dealt out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_vdist.options.parsers import Shard
from pytest_vdist.selection import of_shard

pytestmark = pytest.mark.usefixtures("plain_sessions")
SOURCE = """
import pytest

@pytest.mark.parametrize("number", range(4))
def test_many(number):
    pass

def test_one(): pass
def test_two(): pass
def test_wrong(): assert False
"""


def items(functions: dict[str, int]) -> list[Any]:
    return [SimpleNamespace(nodeid=f"{name}[{each}]") for name, n in functions.items() for each in range(n)]


@given(
    st.dictionaries(st.sampled_from([f"t.py::test_{i}" for i in range(30)]), st.integers(1, 9), min_size=1),
    st.integers(1, 7),
)
def test_parts_are_a_partition_whole_functions_and_even(functions: dict[str, int], count: int) -> None:
    whole = items(functions)
    parts = [of_shard(whole, Shard(number, count)) for number in range(1, count + 1)]
    found = [item.nodeid for part in parts for item in part]
    assert sorted(found) == sorted(item.nodeid for item in whole)
    of_function = [{item.nodeid.partition("[")[0] for item in part} for part in parts]
    assert sum(map(len, of_function)) == len(functions)
    sizes = list(map(len, parts))
    assert max(sizes) - min(sizes) <= max(functions.values())
    again = of_shard(list(reversed(whole)), Shard(1, count))
    assert [item.nodeid for item in reversed(again)] == [item.nodeid for item in parts[0]]


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["plain", "xdist"])
def test_jobs_share_the_tests(workers: tuple[str, ...], pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SOURCE)
    one = pytester.runpytest_subprocess("--vdist-shard=1/2", "-v", *workers)
    two = pytester.runpytest_subprocess("--vdist-shard=2/2", "-v", *workers)
    one.assert_outcomes(passed=4, deselected=0 if workers else 3)
    two.assert_outcomes(passed=2, failed=1, deselected=0 if workers else 4)
    one.stdout.no_fnmatch_line("*test_one*")


PROFILES = """
import pytest

@pytest.mark.vdist_requirement("VD-AR-001")
def test_of_core(): pass

@pytest.mark.vdist_requirement("VD-AR-001")
def test_of_a_mode(compile_mode): pass

@pytest.mark.vdist_requirement("VD-NODE-001")
def test_of_nodes(): pass

def test_of_no_requirement(): pass
"""


@pytest.mark.parametrize(
    ("profiles", "found"),
    [
        ("core", ["test_of_core", "test_of_a_mode[cpu-eager]"]),
        ("compile", ["test_of_a_mode[cpu-aot_eager]"]),
        ("multi-node,core", ["test_of_core", "test_of_a_mode[cpu-eager]", "test_of_nodes"]),
    ],
)
def test_a_profile_has_its_tests_in_its_modes(
    profiles: str, found: list[str], pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_it=PROFILES)
    modes = ("--vdist-compile=eager,aot_eager", f"--vdist-profile={profiles}")
    result = pytester.runpytest_subprocess("-v", *modes)
    result.assert_outcomes(passed=len(found), deselected=5 - len(found))
    result.stdout.fnmatch_lines([f"test_it.py::{name.replace('[', '[[]')} PASSED*" for name in found])


def test_shards_are_parts_of_the_profile(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=PROFILES)
    core = ("--vdist-profile=core", "-n2")
    parts = [pytester.runpytest_subprocess(*core, f"--vdist-shard={number}/2") for number in (1, 2)]
    for part in parts:
        part.assert_outcomes(passed=1)
