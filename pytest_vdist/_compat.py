"""Private interfaces of pytest that the plugin needs, each with its version range and reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


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
