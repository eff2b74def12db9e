"""Failures of ranks with pytest's explanation of the comparison that was wrong, item by item."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_vdist import _compat

if TYPE_CHECKING:
    from pytest_vdist.ranks.comparisons import Comparison
    from pytest_vdist.ranks.failures import DistributedRunError, RankStatus


def explain(failure: DistributedRunError) -> None:
    """Add to each rank's failed assert what `pytest_assertrepr_compare` says of it, for the current test."""
    failure.statuses = tuple(map(_explained, failure.statuses))


def _explained(status: RankStatus) -> RankStatus:
    raised = status.raised
    if raised is None or raised.comparison is None:
        return status
    traceback = "\n".join([raised.traceback, *_lines(raised.comparison)])
    return replace(status, raised=replace(raised, traceback=traceback))


def _lines(comparison: Comparison) -> list[str]:
    left, right = pickle.loads(comparison.operands)  # noqa: S301 - built-in values of our own ranks
    try:
        lines = _compat.comparison_lines(comparison.operator, left, right)
    except (Exception, pytest.skip.Exception, pytest.fail.Exception) as error:
        return [f"(the hook pytest_assertrepr_compare raised {type(error).__name__}: {error})"]
    # pytest's own begins with what the error says itself, and an empty line.
    return lines[1:] if lines[1:2] == [""] else lines
