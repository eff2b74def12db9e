"""The pytest plugin: hooks only."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vdist_requirement(*ids): the requirements that the test checks")
    config.addinivalue_line(
        "markers", "vdist_world_size(min=1, max=None, multiple_of=1): the world sizes that the test can use"
    )
