"""Collectives of one kind that torch.distributed makes as one."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from pytest_vdist.judge import Observation
from pytest_vdist.process_groups.calls import Call
from pytest_vdist.process_groups.judgement import GroupRun, judge, perform_coalesced

SHAPES = ((3,), (129, 2), (1,), (5, 3))

pytestmark = pytest.mark.vdist_world_size(min=2)


@pytest.mark.vdist_requirement("VD-PG-016")
@pytest.mark.parametrize("async_ops", [False, True], ids=["sync", "async"])
def test_coalesced_collectives_are_as_single_ones(
    process_group_run: GroupRun, world_size: int, async_ops: bool
) -> None:
    """Several sums, gathers or scatters of one dtype, made as one, give what each of them gives alone."""
    operations = ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor")
    batches = [
        [Call(operation, shape, reduction=reduction, seed=seed) for seed, shape in enumerate(SHAPES)]
        for operation in operations
        for reduction in (("sum",) if operation == "all_gather_into_tensor" else ("sum", "max"))
    ]

    def body(group: dist.ProcessGroup, device: torch.device) -> list[list[Observation]]:
        return [perform_coalesced(group, device, batch, async_ops=async_ops) for batch in batches]

    by_rank = process_group_run(body, world_size=world_size)
    for number, batch in enumerate(batches):
        for place, call in enumerate(batch):
            judge(call, [each[number][place] for each in by_rank])
