"""Calls that every rank makes wrong in the same way: refused on every rank, and the group goes on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import Capabilities
from pytest_vdist.process_groups.calls import Call
from pytest_vdist.process_groups.declared import skip_if_declared
from pytest_vdist.process_groups.judgement import GroupRun, judge, perform
from pytest_vdist.process_groups.names import all_gather_tensor, reduce_scatter_tensor


def wrong_calls(group: dist.ProcessGroup, device: torch.device) -> dict[str, Callable[[], Any]]:
    """Return calls with an argument that contradicts another one, or the group, on every rank alike."""
    size = dist.get_world_size(group)
    x = torch.ones(2 * size, device=device)
    other = torch.zeros(2 * size * size, dtype=torch.int64, device=device)

    def empty(count: int, like: torch.Tensor = x) -> torch.Tensor:
        return torch.zeros(count, dtype=like.dtype, device=device)

    return {
        "all_gather_into_tensor into too few elements": lambda: all_gather_tensor(
            empty(2 * size * size - 1), x, group=group
        ),
        "all_gather_into_tensor into too many elements": lambda: all_gather_tensor(
            empty(2 * size * size + size), x, group=group
        ),
        "all_gather_into_tensor into another dtype": lambda: all_gather_tensor(other, x, group=group),
        "all_gather into too few tensors": lambda: dist.all_gather(
            [empty(2 * size)] * (size - 1), x, group=group
        ),
        "all_gather into another dtype": lambda: dist.all_gather(list(other.chunk(size)), x, group=group),
        "reduce_scatter_tensor into too few elements": lambda: reduce_scatter_tensor(
            empty(1), x, group=group
        ),
        "reduce_scatter_tensor into too many elements": lambda: reduce_scatter_tensor(
            empty(3), x, group=group
        ),
        "reduce_scatter_tensor into another dtype": lambda: reduce_scatter_tensor(other[:2], x, group=group),
        "reduce_scatter of too few tensors": lambda: dist.reduce_scatter(
            empty(2), [empty(2)] * (size - 1), group=group
        ),
        "all_to_all of too few tensors": lambda: dist.all_to_all(
            [empty(2)] * (size - 1), [empty(2)] * (size - 1), group=group
        ),
        "all_to_all_single with splits beyond the input": lambda: dist.all_to_all_single(
            empty(2 * size), x, [2] * size, [3] * size, group=group
        ),
        "all_to_all_single with splits short of the output": lambda: dist.all_to_all_single(
            empty(2 * size), x, [1] * size, [2] * size, group=group
        ),
        "all_to_all_single into another dtype": lambda: dist.all_to_all_single(
            other[: 2 * size], x, group=group
        ),
        "broadcast from a rank beyond the group": lambda: dist.broadcast(x, group_src=size, group=group),
        "broadcast from a negative rank": lambda: dist.broadcast(x, group_src=-1, group=group),
        "reduce to a rank beyond the group": lambda: dist.reduce(x, group_dst=size, group=group),
        "send to this rank itself": lambda: dist.send(x, group_dst=dist.get_rank(group), group=group),
    }


def accepted_of(calls: dict[str, Callable[[], Any]]) -> list[str]:
    """Make the calls, and return the names of those that raised nothing."""
    accepted = []
    for what, call in calls.items():
        try:
            call()
        except Exception:  # noqa: S112 - any error is a refusal, silence is not
            continue
        accepted.append(what)
    return accepted


def assert_refused(
    run: GroupRun, calls: Callable[[dist.ProcessGroup, torch.device], dict[str, Any]], world_size: int
) -> None:
    """Assert that every rank refuses all of the calls, and that a usual one after them is right."""
    usual = Call("all_reduce", (5,))

    def body(group: dist.ProcessGroup, device: torch.device) -> tuple[list[str], Any]:
        accepted = accepted_of(calls(group, device))
        return accepted, perform(group, device, [usual])[0]

    by_rank = run(body, world_size=world_size)
    for rank, (accepted, _) in enumerate(by_rank):
        assert accepted == [], f"rank {rank} has done what cannot be done: {'; '.join(accepted)}"
    judge(usual, [outcome for _, outcome in by_rank])


@pytest.mark.vdist_world_size(min=2, max=3)
@pytest.mark.vdist_requirement("VD-PG-019")
def test_contradictions_are_refused_on_every_rank(
    process_group_run: GroupRun, capabilities: Capabilities, world_size: int
) -> None:
    """Sizes, dtypes, splits and ranks that cannot be: an error on every rank, and the next call is right."""
    skip_if_declared(capabilities, "process_group_contradictions")
    assert_refused(process_group_run, wrong_calls, world_size)


@pytest.mark.vdist_world_size(min=2, max=3)
@pytest.mark.vdist_requirement("VD-PG-021")
def test_rows_without_equal_parts_are_refused(
    process_group_run: GroupRun, capabilities: Capabilities, world_size: int
) -> None:
    """Without splits, an exchange of rows that the ranks cannot share equally is an error on every rank."""
    skip_if_declared(capabilities, "process_group_remainders")

    def calls(group: dist.ProcessGroup, device: torch.device) -> dict[str, Callable[[], Any]]:
        size = dist.get_world_size(group)
        return {
            f"all_to_all_single of {rows} rows": partial(
                dist.all_to_all_single,
                torch.zeros(rows, device=device),
                torch.ones(rows, device=device),
                group=group,
            )
            for rows in (2 * size + 1, size - 1)
        }

    assert_refused(process_group_run, calls, world_size)
