"""The controller's terminal, for ranks that are being debugged and for starts that take long."""

from __future__ import annotations

import sys

import pytest

from pytest_vdist import _compat

_INTERRUPTED = pytest.StashKey[bool]()


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


def notify(config: pytest.Config, text: str) -> None:
    """Show a line of its own in pytest's progress, whatever pytest captures; nothing with -q.

    Workers of xdist, which have no terminal, show nothing.
    """
    reporter = None if hasattr(config, "workerinput") else config.pluginmanager.getplugin("terminalreporter")
    if reporter is None or config.get_verbosity(pytest.Config.VERBOSITY_TEST_CASES) < 0:
        return
    with _compat.capture_suspended(config):
        _compat.interrupt_progress(reporter, text)
    config.stash[_INTERRUPTED] = True


def resume_line(item: pytest.Item) -> None:
    """Begin the progress line of a test again, if a notice has interrupted it."""
    if item.config.stash.get(_INTERRUPTED, False):
        del item.config.stash[_INTERRUPTED]
        _compat.resume_progress(item.config.pluginmanager.getplugin("terminalreporter"), item)
