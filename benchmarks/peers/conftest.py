"""Writes each test's time, set-up and tear-down included, with more digits than the JUnit file has."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

_seconds: defaultdict[str, float] = defaultdict(float)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--durations-to", type=Path)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] += report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.getoption("--durations-to").write_text(json.dumps(list(_seconds.values())))
