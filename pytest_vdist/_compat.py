"""Private interfaces of pytest that the plugin needs, each with its version range and reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def fixture_definition(metafunc: pytest.Metafunc, name: str) -> pytest.FixtureDef[Any] | None:
    """Return the definition that a test will get for a fixture name, None if it has none.

    Checked with pytest 8.3 to 9.2. Metafunc offers the names of fixtures only, and this plugin must not
    parametrise a fixture `backend` that a project has of its own.
    """
    definitions = metafunc._arg2fixturedefs.get(name)
    return definitions[-1] if definitions else None
