"""Property tests on ranks: an example may have to start ranks, which no deadline of 200 ms allows for."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pytest_vdist import _compat

_RUNNERS = frozenset({"distributed_run", "coordinator_run", "program_run"})


def lift_deadlines(items: Iterable[pytest.Item]) -> None:
    """Take Hypothesis' default deadline from tests that run on ranks: each run has its own."""
    for item in items:
        function = getattr(item, "obj", None)
        if getattr(function, "is_hypothesis_test", False) and _RUNNERS & set(
            getattr(item, "fixturenames", ())
        ):
            _compat.drop_default_deadline(function)
