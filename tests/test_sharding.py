"""--vdist-shard: every test in one part, the same one wherever it is dealt out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_vdist.options.parsers import Shard
from pytest_vdist.sharding import of_shard

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
