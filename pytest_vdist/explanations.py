"""Failures of ranks with pytest's explanation of the comparison that was wrong, item by item."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_vdist.ranks.comparisons import Comparison
    from pytest_vdist.ranks.failures import DistributedRunError

_MOST_LINES = 8
_MOST_CHARACTERS = 8 * 80
_CUT = "...Full output truncated, use '-vv' to show"


def explain(config: pytest.Config, failure: DistributedRunError) -> None:
    """Add to each rank's failed assert what the hook `pytest_assertrepr_compare` says of its operands."""
    failure.statuses = tuple(
        status
        if status.raised is None or status.raised.comparison is None
        else replace(
            status,
            raised=replace(
                status.raised,
                traceback="\n".join([status.raised.traceback, *_lines(config, status.raised.comparison)]),
            ),
        )
        for status in failure.statuses
    )


def _lines(config: pytest.Config, comparison: Comparison) -> list[str]:
    from pytest_vdist.ranks import wire  # noqa: PLC0415 - imports torch, which an unused plugin must not

    try:
        left, right = wire.load_result(comparison.operands)
    except wire.CannotTravelError:  # what only ranks can make
        return []
    try:
        found: list[Iterable[str] | None] = config.hook.pytest_assertrepr_compare(
            config=config, op=comparison.operator, left=left, right=right
        )
        # The first line is what the error itself says.
        explained = ([*islice(each or (), 1, None)] for each in found)
        lines = next(filter(None, explained), [])
    except Exception as error:
        return [f"(the hook pytest_assertrepr_compare raised {type(error).__name__}: {error})"]
    return _shortened(lines, whole=_wants_all(config))


def _wants_all(config: pytest.Config) -> bool:
    verbosity = config.get_verbosity(pytest.Config.VERBOSITY_ASSERTIONS)
    return verbosity >= 2 or bool(os.environ.get("CI") or os.environ.get("BUILD_NUMBER"))


def _shortened(lines: list[str], *, whole: bool) -> list[str]:
    kept: list[str] = []
    for line in lines:
        if not whole and (len(kept) == _MOST_LINES or sum(map(len, kept)) + len(line) > _MOST_CHARACTERS):
            return [*kept, _CUT]
        kept.append(line)
    return kept
