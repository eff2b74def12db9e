"""Suites of faults where a failing device operation is declared to end the process, as on CUDA."""

from __future__ import annotations

import pytest

MANIFEST = """
schema = "vdist-manifest/1"
[device]
name = "cpu"
[claims]
device_failures = "abort"
"""
SUITES = (
    "--pyargs",
    "pytest_vdist.suites.timeouts.test_blocking_calls",
    "pytest_vdist.suites.faults.test_lost_ranks",
)
TESTS = (
    "test_the_device_limit_ends_every_wait or test_the_survivors_of_a_lost_rank_get_errors_in_time and killed"
)


def test_the_suites_pass_where_failing_calls_may_end_the_process(
    pytester: pytest.Pytester,
) -> None:
    (pytester.path / "manifest.toml").write_text(MANIFEST)
    flags = ("--vdist-backend=cpu", "--vdist-manifest=manifest.toml", *SUITES, "-k", TESTS)
    result = pytester.runpytest_subprocess(*flags)
    result.assert_outcomes(passed=2)
