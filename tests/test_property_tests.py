"""Hypothesis drives the ranks."""

from __future__ import annotations

import pytest

PROPERTY = """
    import torch
    import torch.distributed as dist
    from hypothesis import given, settings, strategies as st

    @given(n=st.integers(0, 50))
    def test_holds_on_cold_ranks(distributed_run, n):
        def body():
            x = torch.full((n,), 1.0)
            dist.all_reduce(x)
            return x.tolist()

        assert distributed_run(body) == [[2.0] * n] * 2

    @settings(max_examples=300)
    @given(n=st.integers(0, 100))
    def test_fails(distributed_run, n):
        def body():
            assert n < 7

        distributed_run(body)

    @settings(deadline=1)
    @given(n=st.integers(0, 3))
    def test_keeps_its_own_deadline(distributed_run, n):
        distributed_run(lambda: __import__("time").sleep(0.05))
"""


def test_examples_run_on_warm_ranks_and_failures_shrink(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PROPERTY)

    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*test_fails(*", "*n=7,*"])
    result.stdout.fnmatch_lines(["*DeadlineExceeded*"])
    assert "distinct failures" not in result.stdout.str()
