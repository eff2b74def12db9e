"""What pytest says of the comparison in an assert that failed in a rank."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("plain_sessions")

TESTS = """
import threading
from pytest_vdist import current_rank

def test_items(distributed_run):
    def body():
        got = [current_rank().rank * 0, 2, 3]
        assert got == [0, 2, 4]
    distributed_run(body)

def check(found):
    assert found == {"a": 1, "b": [1, 3]}

def test_helper(distributed_run):
    distributed_run(lambda: check({"a": 1, "b": [1, 2]}))

def test_caught(distributed_run):
    def body():
        try:
            assert [1] == [2]
        except AssertionError:
            assert not current_rank().world_size
    distributed_run(body)

def test_other_error(distributed_run):
    def body():
        try:
            assert [1] == [2]
        except AssertionError:
            raise AssertionError("something else")
    distributed_run(body)

def test_stays_there(distributed_run):
    def body():
        assert [threading.Lock()] == [3]
    distributed_run(body)

def test_large(distributed_run):
    def body():
        assert list(range(100_000)) == [0]
    distributed_run(body)

def test_many_lines(distributed_run):
    def body():
        assert {str(n): n for n in range(30)} == {}
    distributed_run(body)
"""


@pytest.fixture
def failures(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Write the tests; pytest shows everything where CI is set."""
    for variable in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(variable, raising=False)
    pytester.makepyfile(TESTS)
    return pytester


def explained(pytester: pytest.Pytester, test: str, *arguments: str) -> list[str]:
    """Return what stands below the message of the ranks' AssertionError, without blank lines."""
    result = pytester.runpytest_subprocess("-k", test, *arguments)
    result.assert_outcomes(failed=1, deselected=TESTS.count("def test_") - 1)
    lines = [line.removeprefix("E").strip() for line in result.outlines if line.startswith("E  ")]
    start = max(number for number, line in enumerate(lines) if line.startswith("AssertionError: "))
    return [line for line in lines[start + 1 :] if line and not line.startswith("+")]


def test_containers_are_compared_item_by_item(failures: pytest.Pytester) -> None:
    assert explained(failures, "test_items") == ["At index 2 diff: 3 != 4", "Use -v to get more diff"]


def test_asserts_of_helpers_are_explained_too(failures: pytest.Pytester) -> None:
    found = explained(failures, "test_helper")
    assert found[:3] == [
        "Omitting 1 identical items, use -vv to show",
        "Differing items:",
        "{'b': [1, 2]} != {'b': [1, 3]}",
    ]


@pytest.mark.parametrize("test", ["test_caught", "test_other_error"])
def test_a_comparison_whose_error_was_caught_explains_no_other(failures: pytest.Pytester, test: str) -> None:
    assert explained(failures, test) == []


@pytest.mark.parametrize("test", ["test_stays_there", "test_large"])
def test_operands_that_cannot_travel_or_are_large_are_left_as_they_are(
    failures: pytest.Pytester, test: str
) -> None:
    assert explained(failures, test) == []


def test_long_explanations_are_cut_unless_asked_for(failures: pytest.Pytester) -> None:
    assert explained(failures, "test_many_lines")[-1] == "...Full output truncated, use '-vv' to show"
    assert "Full output truncated" not in "".join(explained(failures, "test_many_lines", "-vv"))


def test_hooks_of_the_project_explain(failures: pytest.Pytester) -> None:
    failures.makeconftest(
        """
        def pytest_assertrepr_compare(config, op, left, right):
            if isinstance(left, list):
                return ["lists", f"{op} of {left} and {right}", "as the project sees it"]
        """
    )
    assert explained(failures, "test_items") == ["== of [0, 2, 3] and [0, 2, 4]", "as the project sees it"]


def test_a_hook_that_fails_is_told_and_hides_no_failure(failures: pytest.Pytester) -> None:
    failures.makeconftest("def pytest_assertrepr_compare(): raise OSError('no such thing')")
    assert explained(failures, "test_items") == [
        "(the hook pytest_assertrepr_compare raised OSError: no such thing)"
    ]
