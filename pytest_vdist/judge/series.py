"""Hundreds of calls in a row on one communicator, whose results are kept and judged together at the end.

Counters that wrap, and buffers that are used in turns, show in no shorter row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from .cases import Case, Group, Run, call_of
from .compare import compare_exact

CALLS = 520
"""More than twice what eight bits count."""
_ELEMENTS = 8
_SHOWN = 3


def assert_series(run: Run, operation: str, *, world_size: int) -> None:
    """Assert that every result of the row is right when it comes, and still at the end."""
    __tracebackhide__ = True
    by_rank = run(series_findings, whole_series(operation, world_size), world_size=world_size)
    findings = [f"rank {rank}: {finding}" for rank, found in enumerate(by_rank) for finding in found]
    if findings:
        raise AssertionError("\n".join(findings))


def whole_series(operation: str, world_size: int) -> Case:
    """Return all calls as one case: each passes a row of its input, and gets that row of its result."""
    sizes = [_ELEMENTS * (rank + 1) for rank in range(world_size)]
    parts = {"reduce_scatter": _ELEMENTS * world_size, "reduce_scatterv": sum(sizes)}
    arguments: dict[str, Any] = {} if operation in {"all_reduce", "broadcast"} else {"dim": 1}
    if operation in {"all_gatherv", "reduce_scatterv"}:
        arguments["sizes"] = sizes
    return Case(operation, (CALLS, parts.get(operation, _ELEMENTS)), torch.float32, arguments)


def series_findings(group: Group, whole: Case) -> list[str]:
    """Make the calls, in a rank, and say which results are wrong: the first few, and how many there are."""
    rank, ranks = group.rank_in_group, group.world_size
    arguments = {**whole.arguments, **({"dim": 0} if "dim" in whole.arguments else {})}
    one = replace(whole, shape=whole.shape[1:], arguments=arguments)
    results, copies = [], []
    for row in whole.input(rank, ranks).to(group.device):
        result = call_of(group, one, row.clone())
        results.append(result)
        copies.append(None if result is None else result.clone())
    expected = whole.expected(ranks)[rank]
    findings = []
    for number, (result, copy) in enumerate(zip(results, copies, strict=True)):
        want = None if expected is None else expected[number]
        wrong = _difference(copy, want) or _later(_difference(result, want))
        if wrong:
            findings.append(f"call {number + 1} of {len(results)} in a row, {one}: {wrong}")
    more = len(findings) - _SHOWN
    return findings[:_SHOWN] + ([f"{more} more calls of the row"] if more > 0 else [])


def _later(wrong: str) -> str:
    return wrong and f"right when it came, and changed by a later call: {wrong}"


def _difference(got: torch.Tensor | None, want: torch.Tensor | None) -> str:
    if got is None or want is None:
        return "" if got is want else f"got {_kind(got)}, expected {_kind(want)}"
    if (got.shape, got.dtype) != (want.shape, want.dtype):
        return f"got {_kind(got)}, expected {_kind(want)}"
    found = compare_exact(got.cpu(), want, zeros_equal=True)
    return "" if found is None else str(found)


def _kind(value: torch.Tensor | None) -> str:
    return "None" if value is None else f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
