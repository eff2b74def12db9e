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

class Mine:
    def __eq__(self, other):
        return False

def test_own_class(distributed_run):
    def body():
        assert [Mine()] == [3]
    distributed_run(body)

def test_not_a_number(distributed_run):
    def body():
        nan = float("nan")
        assert [nan, 1] == [nan, 2]
    distributed_run(body)

def test_retried(distributed_run):
    def body():
        for ready, got in ((True, [1]), (False, [2])):
            try:
                assert ready and got == [2]
            except AssertionError:
                if not ready:
                    raise
    distributed_run(body)

def test_one_of_two(distributed_run):
    def body():
        assert [1] == [2] or [3] == [4]
    distributed_run(body)

def test_changed_later(distributed_run):
    def body():
        got = [1, 2]
        try:
            assert got == [1, 3]
        finally:
            got[:] = [9, 9, 9]
    distributed_run(body)

def test_other_thread(distributed_run):
    def body():
        def fail():
            try:
                assert [5] == [6]
            except AssertionError:
                pass
        try:
            assert [1] == [2]
        except AssertionError as error:
            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()
            raise
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
    assert result.parseoutcomes()["failed"] == 1
    lines = [line.removeprefix("E").strip() for line in result.outlines if line.startswith("E  ")]
    start = max(number for number, line in enumerate(lines) if line.startswith("AssertionError: "))
    return [line for line in lines[start + 1 :] if line and not line.startswith("+")]


def test_containers_are_compared_item_by_item(failures: pytest.Pytester) -> None:
    assert explained(failures, "test_items") == ["At index 2 diff: 3 != 4", "Use -v to get more diff"]


def test_operands_are_those_of_the_assert_whatever_became_of_them(failures: pytest.Pytester) -> None:
    assert explained(failures, "test_changed_later")[0] == "At index 1 diff: 2 != 3"


def test_asserts_of_other_threads_do_not_interfere(failures: pytest.Pytester) -> None:
    assert explained(failures, "test_other_thread")[0] == "At index 0 diff: 1 != 2"


def test_asserts_of_helpers_are_explained_too(failures: pytest.Pytester) -> None:
    found = explained(failures, "test_helper")
    assert found[:3] == [
        "Omitting 1 identical items, use -vv to show",
        "Differing items:",
        "{'b': [1, 2]} != {'b': [1, 3]}",
    ]


@pytest.mark.parametrize("test", ["test_caught", "test_other_error", "test_retried", "test_one_of_two"])
def test_only_the_comparison_of_the_error_explains_it(failures: pytest.Pytester, test: str) -> None:
    assert explained(failures, test) == []


@pytest.mark.parametrize("test", ["test_own_class", "test_large", "test_not_a_number"])
def test_operands_of_other_classes_large_ones_and_nan_are_left_as_they_are(
    failures: pytest.Pytester, test: str
) -> None:
    assert explained(failures, test) == []


def test_long_explanations_are_cut_unless_asked_for(failures: pytest.Pytester) -> None:
    assert "Full output truncated" in explained(failures, "test_many_lines")[-1]
    assert "Full output truncated" not in "".join(explained(failures, "test_many_lines", "-vv"))


def test_hooks_of_the_project_explain(failures: pytest.Pytester) -> None:
    failures.makeconftest(
        """
        def pytest_assertrepr_compare(config, op, left, right):
            if isinstance(left, list):
                return [f"{op} of {left} and {right}", "as the project sees it"]
        """
    )
    assert explained(failures, "test_items") == ["== of [0, 2, 3] and [0, 2, 4]", "as the project sees it"]


def test_hooks_of_other_folders_do_not(failures: pytest.Pytester) -> None:
    failures.mkpydir("other").joinpath("conftest.py").write_text(
        "def pytest_assertrepr_compare(): return ['of another folder']"
    )
    (failures.path / "other" / "test_other.py").write_text("def test_nothing(): pass")
    assert explained(failures, "test_items")[0] == "At index 2 diff: 3 != 4"


def test_a_hook_that_fails_is_told_and_hides_no_failure(failures: pytest.Pytester) -> None:
    failures.makeconftest("def pytest_assertrepr_compare(): raise OSError('no such thing')")
    assert explained(failures, "test_items") == [
        "(the hook pytest_assertrepr_compare raised OSError: no such thing)"
    ]
