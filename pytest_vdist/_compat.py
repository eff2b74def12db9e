"""Private interfaces of pytest that the plugin needs, each with its version range and reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from _pytest.assertion import util

if TYPE_CHECKING:
    import pytest

_SOMETHING = -2


@contextmanager
def capture_suspended(config: pytest.Config) -> Iterator[None]:
    """Give standard input and output back to the terminal for a while.

    pytest 8.3 to 9.2: only the capture manager can also give back the input.
    """
    manager = config.pluginmanager.getplugin("capturemanager")
    if manager is None:
        yield
        return
    manager.suspend(in_=True)
    try:
        yield
    finally:
        manager.resume()


def drop_default_deadline(function: Any) -> None:
    """Take Hypothesis' default deadline of 200 ms from a property test; one that the user has set stays.

    Hypothesis 6.100 to 6.170: the settings of a test are kept in `_hypothesis_internal_use_settings`, and a
    decorator can't be applied where the test has one already.
    """
    from hypothesis import settings  # noqa: PLC0415 - it is loaded already: this is a property test

    current = getattr(function, "_hypothesis_internal_use_settings", None)
    default = settings().deadline
    if current is not None and current.deadline == default:
        function._hypothesis_internal_use_settings = settings(current, deadline=None)


def fixture_definition(metafunc: pytest.Metafunc, name: str) -> pytest.FixtureDef[Any] | None:
    """Return the definition that a test will get for a fixture name, None if it has none.

    Checked with pytest 8.3 to 9.2. Metafunc offers the names of fixtures only, and this plugin must not
    parametrise a fixture `backend` that a project has of its own.
    """
    definitions = metafunc._arg2fixturedefs.get(name)
    return definitions[-1] if definitions else None


def interrupt_progress(reporter: Any, text: str) -> None:
    """Write a line of its own at the terminal, in the middle of a progress line.

    pytest 8.3 to 9.2: `currentfspath` says what the line holds; other values than a path mean "something".
    """
    reporter.ensure_newline()
    reporter.write(text, flush=True)
    reporter.currentfspath = _SOMETHING


def run_item(item: pytest.Item, after: pytest.Item | pytest.Session | None) -> list[pytest.TestReport]:
    """Run a test with its set-up and tear-down, and report nothing.

    What `after`, the next test or the session, is part of stays set up. pytest 8.3 to 9.2: no public function
    runs an item without reporting it; the tear-down asks `nextitem` for its parents and itself only.
    """
    from _pytest.runner import runtestprotocol  # noqa: PLC0415 - private, so where it is used

    return runtestprotocol(item, log=False, nextitem=cast("pytest.Item", after))


def resume_progress(reporter: Any, item: pytest.Item) -> None:
    """Begin a new line as for the start of the test; see `interrupt_progress`.

    The reporter's own hook for the start of a test writes the prefix on a new line.
    """
    reporter.currentfspath = None
    reporter.pytest_runtest_logstart(item.nodeid, item.location)


def comparison_lines(operator: str, left: object, right: object) -> list[str]:
    """Return what the hook `pytest_assertrepr_compare` says of a comparison, as pytest shows it in this test.

    pytest 8 to 9: `_pytest.assertion.util._reprcompare`, which is there while a test runs, calls the hooks of
    the test's own conftest files and cuts long texts. It joins lines by a mark and doubles percent signs.
    """
    compare: Any = util._reprcompare
    text = None if compare is None else compare(operator, left, right)
    return [] if text is None else str(text).replace("%%", "%").split("\n~")
