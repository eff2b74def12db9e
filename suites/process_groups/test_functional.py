"""Functional collectives, which compilers put in place of torch.distributed's own, called as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist.judge import movement_input, same_bits
from pytest_vdist.judge.cases import Case, assert_cases
from pytest_vdist.process_groups.functional import FunctionalGroup
from pytest_vdist.process_groups.judgement import GroupRun

pytestmark = pytest.mark.vdist_world_size(min=2, max=2)


@pytest.mark.vdist_requirement("VD-PG-017")
def test_functional_collectives_leave_their_inputs_alone(
    process_group_run: GroupRun, world_size: int
) -> None:
    """Sums, gathers and scatters along any dimension are new tensors; inputs of any strides stay."""

    def run(fn: Callable[..., Any], /, *args: Any, world_size: int, group_ranks: Any = None) -> list[Any]:
        def body(group: dist.ProcessGroup, device: torch.device) -> Any:
            return fn(FunctionalGroup(group, device), *args)

        return process_group_run(body, world_size=world_size, group_ranks=group_ranks)

    cases = [
        Case("all_reduce", (5, 3), dtype, layout=layout)
        for dtype in (torch.float32, torch.bfloat16, torch.int64)
        for layout in ("contiguous", "offset")
    ]
    cases += [
        Case("all_gather", (5, 3), dtype, {"dim": dim}, values="movement")
        for dtype in (torch.float32, torch.bfloat16, torch.uint8)
        for dim in (0, 1)
    ]
    cases += [
        Case("reduce_scatter", (2 * world_size, world_size), dtype, {"dim": dim})
        for dtype in (torch.float32, torch.float16, torch.int32)
        for dim in (0, 1)
    ]
    assert_cases(run, cases, world_size=world_size)


@pytest.mark.vdist_requirement("VD-PG-017")
def test_functional_exchanges_are_new_tensors(process_group_run: GroupRun, world_size: int) -> None:
    """What is broadcast, or exchanged in equal and unequal splits, is a new tensor; inputs stay."""

    def sizes(src: int) -> list[int]:
        return [(2 * src + dst) % 3 for dst in range(world_size)]

    def rows(src: int, count: int) -> torch.Tensor:
        return movement_input((count, 3), torch.float32, rank=src, seed=count)

    def body(group: dist.ProcessGroup, device: torch.device) -> list[str]:
        functional, here, ranks = FunctionalGroup(group, device), dist.get_rank(group), range(world_size)
        equal = [rows(src, world_size) for src in ranks]
        unequal = [rows(src, sum(sizes(src))) for src in ranks]
        one, several = equal[here].to(device, copy=True), unequal[here].to(device, copy=True)
        parts = [torch.split(unequal[src], sizes(src))[here] for src in ranks]
        results = [
            (functional.broadcast(one, world_size - 1), equal[-1]),
            (functional.all_to_all_single(one, None, None), torch.stack([each[here] for each in equal])),
            (
                functional.all_to_all_single(several, [len(part) for part in parts], sizes(here)),
                torch.cat(parts),
            ),
            (one, equal[here]),
            (several, unequal[here]),
        ]
        return [f"got {got}, want {want}" for got, want in results if not same_bits(got.cpu(), want)]

    assert process_group_run(body, world_size=world_size) == [[]] * world_size
