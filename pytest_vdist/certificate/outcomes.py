"""Outcomes of tests in order of severity, and exit codes in order of priority."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What became of a test, from the mildest to the worst."""

    NOT_RUN = "not_run"
    UNSUPPORTED = "unsupported"
    PASSED = "passed"
    WAIVED = "waived"
    FLAKY = "flaky"
    FAILED = "failed"
    HANG = "hang"
    CRASH = "crash"
    ERROR = "error"


EXECUTED = frozenset({"passed", "waived", "flaky", "failed", "hang", "crash"})
"""Outcomes of tests that judged the implementation."""
BAD = frozenset({"flaky", "failed", "hang", "crash"})
"""Outcomes that speak against the implementation."""

RANKS_PER_DEVICE = "vdist.ranks_per_device"
"""The property of a test that says how many ranks shared a device, if any did."""

OK, FAILED, INTERRUPTED, INTERNAL_ERROR, USAGE_ERROR, NO_TESTS = 0, 1, 2, 3, 4, 5
INCOMPLETE, BAD_WAIVER, HANG_OR_CRASH, FLAKY = 10, 11, 12, 13
REGRESSION, CONTROL_MISSED, CONTRADICTED = 14, 15, 16
_PRIORITY = (
    *(INTERNAL_ERROR, USAGE_ERROR, INTERRUPTED, HANG_OR_CRASH, FAILED, CONTRADICTED, FLAKY),
    *(NO_TESTS, INCOMPLETE, REGRESSION, BAD_WAIVER, CONTROL_MISSED, OK),
)


def worst_code(codes: set[int]) -> int:
    """Return the exit code that says most; 0 for none. One that is neither ours nor pytest's comes first."""
    foreign = sorted(codes - set(_PRIORITY))
    return foreign[0] if foreign else next((code for code in _PRIORITY if code in codes), OK)
