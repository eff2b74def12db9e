"""Accumulators: how precisely sums are made, as their results tell."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from pytest_vdist import Capabilities, Coordinator, CoordinatorRun
from pytest_vdist.judge import ACCUMULATORS, SumProbe, dtype_name, tree_text
from pytest_vdist.judge.formats import float_format_of

# Blocks for each rank: a ring works on a part of the message for each rank, or on two, and other algorithms
# are taken for long messages.
BLOCKS = (2, 32)


def _total(group: Coordinator, probe: SumProbe) -> torch.Tensor:
    return group.all_reduce(probe.input(group.rank_in_group).to(group.device))


@pytest.mark.vdist_world_size(min=3)
@pytest.mark.vdist_requirement("VD-NUM-001")
def test_sums_are_as_precise_as_declared(
    coordinator_run: CoordinatorRun,
    world_size: int,
    reduction_dtypes: list[torch.dtype],
    capabilities: Capabilities,
    request: pytest.FixtureRequest,
) -> None:
    """A one that is added next to a number and its negative is not lost, up to the declared precision."""
    notes = request.node.user_properties  # shown in JUnit files
    floats = [dtype for dtype in reduction_dtypes if dtype.is_floating_point]
    assert floats, "the device declares no floating-point dtype for sums"
    for dtype, blocks in itertools.product(floats, BLOCKS):
        probe = SumProbe(dtype, world_size, blocks * world_size)
        total = coordinator_run(_total, probe, world_size=world_size)[0]
        seen, what = probe.accumulator(total), f"{dtype_name(dtype)}, {total.numel()} elements"
        notes.append((f"vdist accumulator of {what}", str(seen)))
        notes.append((f"vdist order of {what}", ", ".join(map(tree_text, probe.trees(total)))))
        declared = capabilities.accumulate.get(dtype_name(dtype), "native")
        promised = min(_precision(declared, dtype), probe.most_precise)
        assert seen.precision >= promised, (
            f"all_reduce of {what}, sums with {seen}, declared is {declared!r} with {promised} bits: "
            f"a one is lost between 2**{seen.precision} and -2**{seen.precision}"
        )


def _precision(declared: str, dtype: torch.dtype) -> float:
    if declared == "exact":
        return math.inf
    return float_format_of(ACCUMULATORS[declared] or dtype).precision
