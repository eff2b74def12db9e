"""Tensors that are not contiguous, given to torch.distributed: refused by all ranks, or handled right."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import Capabilities
from pytest_vdist.judge import LAYOUTS, guard, movement_input, poisoned, same_bits
from pytest_vdist.process_groups.calls import OPERATIONS, Call
from pytest_vdist.process_groups.declared import skip_if_declared
from pytest_vdist.process_groups.judgement import GroupRun, assert_calls

SHAPE = (4, 3, 2, 2)
STRIDED = tuple(layout for layout in LAYOUTS if layout not in {"contiguous", "offset", "expanded"})


def calls_in(layouts: tuple[str, ...]) -> list[Call]:
    """Return calls with inputs, or tensors to work on, in each layout, and with outputs in it."""
    calls = [Call(operation, SHAPE, layout=layout) for layout in layouts for operation in OPERATIONS]
    written = [operation for operation in OPERATIONS if not Call(operation, SHAPE).form.in_place]
    return calls + [
        Call(operation, SHAPE, output_layout=layout) for layout in layouts for operation in written
    ]


@pytest.mark.vdist_requirement("VD-PG-015")
def test_tensors_may_begin_anywhere(
    process_group_run: GroupRun, process_group_limits: Mapping[str, str], world_size: int
) -> None:
    """Tensors that begin at an odd place of larger ones are right, and nothing beside them is touched."""
    assert_calls(process_group_run, calls_in(("offset",)), world_size=world_size, limits=process_group_limits)


@pytest.mark.vdist_world_size(min=2, max=3)
@pytest.mark.vdist_requirement("VD-PG-014")
@pytest.mark.parametrize("layout", STRIDED)
def test_strides_are_refused_or_right(
    process_group_run: GroupRun, capabilities: Capabilities, world_size: int, layout: str
) -> None:
    """Transposed, permuted and strided tensors are right, or an error on all ranks, but never mixed up."""
    skip_if_declared(capabilities, "process_group_layouts")
    assert_calls(process_group_run, calls_in((layout,)), world_size=world_size, may_refuse=True)


@pytest.mark.vdist_world_size(min=2, max=2)
@pytest.mark.vdist_requirement("VD-PG-014")
@pytest.mark.parametrize("layout", STRIDED)
def test_strides_of_messages_are_refused_or_right(
    process_group_run: GroupRun, capabilities: Capabilities, world_size: int, layout: str
) -> None:
    """A strided tensor that is sent into a strided tensor arrives, or both ranks are refused."""
    skip_if_declared(capabilities, "process_group_layouts")
    sent = movement_input(SHAPE, torch.float32, rank=0, seed=1)

    def body(group: dist.ProcessGroup, device: torch.device) -> str | tuple[bool, bool]:
        rank = dist.get_rank(group)
        own = guard(sent if rank == 0 else poisoned(SHAPE, torch.float32), layout, device)
        try:
            if rank == 0:
                dist.send(own.tensor, group_dst=1, group=group)
            else:
                dist.recv(own.tensor, group_src=0, group=group)
        except Exception as error:
            return str(error) or type(error).__name__
        return same_bits(own.tensor.cpu(), sent), own.canaries_intact()

    by_rank = process_group_run(body, world_size=world_size)
    if not all(isinstance(each, str) for each in by_rank):
        for rank, each in enumerate(by_rank):
            assert each == (True, True), f"rank {rank}: arrived and left the rest alone: {each}"
