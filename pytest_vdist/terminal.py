"""The controller's terminal, for ranks that are being debugged."""

from __future__ import annotations

import sys

import pytest

from pytest_vdist import _compat


def ask(config: pytest.Config, text: str) -> str:
    """Show a text at the terminal, whatever pytest captures, and return the line that is typed.

    Returns "" at the end of the input, and in a worker of xdist, which has no terminal.
    """
    if hasattr(config, "workerinput"):
        return ""
    with _compat.capture_suspended(config):
        sys.stdout.write(text)
        sys.stdout.flush()
        return sys.stdin.readline()
