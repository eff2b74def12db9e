"""What the process-group backend declares not to have: refused by all ranks, or right."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from pytest_vdist.process_groups.calls import OPERATIONS, Call
from pytest_vdist.process_groups.judgement import GroupRun, assert_calls
from pytest_vdist.process_groups.oracle import BITWISE, REDUCTIONS

PARTS = ("unequal", "stacked")
OF_FUTURES = {f"get_future:{operation}" for operation in OPERATIONS}


def example(limit: str) -> Call:
    """Return a good call that needs what the limit names. Raises ValueError where it names nothing."""
    operation, _, special = limit.rpartition(":")
    if special in OPERATIONS:
        return Call(special, (3, 2))
    if special in REDUCTIONS:
        dtype = torch.int32 if special in BITWISE else torch.float32
        return Call(operation or "all_reduce", (3, 2), dtype, reduction=special)
    if special in PARTS:
        return Call(operation or "all_to_all_single", (3, 2), parts=special)
    raise ValueError(
        f"process_group_limits names {limit!r}, which is no operation, reduction or kind of parts"
    )


@pytest.mark.vdist_world_size(min=2, max=3)
@pytest.mark.vdist_requirement("VD-PG-002")
def test_declared_limits_are_refused_or_right(
    process_group_run: GroupRun, process_group_limits: Mapping[str, str], world_size: int
) -> None:
    """Each limit's call is an error on all ranks, or right on all, and operations after it are right."""
    usual = Call("all_reduce", (5,), torch.float32)
    calls = [usual]
    for limit in sorted({*process_group_limits} - OF_FUTURES):
        calls += [example(limit), usual]
    assert_calls(process_group_run, calls, world_size=world_size, limits=process_group_limits)
