"""What a check finds, and how checks are performed: each ends by its deadline, whatever it meets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What is there. `problem` says what keeps something from working that was asked for or is needed.

    `remedy` says how to get what is missing, also where nobody has asked for it.
    """

    name: str
    value: str
    problem: str | None = None
    remedy: str | None = None


@dataclass(frozen=True)
class Check:
    """A question to the machine. `deadline` is in seconds; `remedy` helps against no answer by then."""

    name: str
    find: Callable[[], Finding]
    deadline: float = 10.0
    remedy: str = "look what the process is doing then: py-spy dump --pid PID"


def perform(check: Check) -> Finding:
    """Return what the check finds, or that it raised or did not end in time."""
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.append(_find(check)), name=check.name, daemon=True)
    thread.start()
    thread.join(check.deadline)
    if found:
        return found[0]
    return Finding(check.name, "no answer", f"there was no answer within {check.deadline:g} s", check.remedy)


def _find(check: Check) -> Finding:
    try:
        return check.find()
    except Exception as error:
        problem = f"the check itself failed with {type(error).__name__}: {error}"
        return Finding(check.name, "not known", problem, "report it to the project with this text")
