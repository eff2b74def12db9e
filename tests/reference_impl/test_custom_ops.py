"""The reference in compiled code: by its operators, and traced through where it has none."""

from __future__ import annotations

import pytest
import torch

from pytest_vdist import Coordinator, DistributedRun, ImplementationSpec, compiled, init_settings
from pytest_vdist.reference_impl import custom_ops

RANKS = [0, 1]


def summed(group: Coordinator) -> tuple[list[float], list[float], list[float], int]:
    """Return z, z * 2 and v of a function in which an in-place all_reduce would leave zeros."""
    weight = torch.eye(4, device=group.device) * 2

    def layers(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z = group.all_reduce(x @ weight)
        u = z @ weight
        return z, u, group.all_gather(u @ weight, 0)

    function = compiled(layers, "inductor")
    z, u, v = function(torch.full((1, 4), group.rank + 1.0, device=group.device))
    return z[0].tolist(), u[0].tolist(), v[:, 0].tolist(), function.graphs


@pytest.mark.parametrize("use_custom_ops", [True, False], ids=["operators", "traced"])
def test_both_roads_through_a_compiler_lead_to_the_same_sums(
    distributed_run: DistributedRun, tmp_path: object, use_custom_ops: bool
) -> None:
    def body() -> tuple[list[float], list[float], list[float], int]:
        world = ImplementationSpec.resolve("reference", "the test").load()
        world.init(init_settings(f"file://{tmp_path}/world"))
        group = world.coordinator([RANKS], name="tensor", use_custom_ops=use_custom_ops)
        result = summed(group)
        world.destroy()
        return result

    results = distributed_run(body, init_process_group=False)
    assert results == [([6.0] * 4, [12.0] * 4, [24.0] * 2, 1)] * 2


def test_arguments_of_operators_are_checked_without_a_compiler_and_with_one(
    distributed_run: DistributedRun, tmp_path: object
) -> None:
    def body() -> list[str]:
        world = ImplementationSpec.resolve("reference", "the test").load()
        world.init(init_settings(f"file://{tmp_path}/world"))
        group = world.coordinator([RANKS], name="tensor")
        three = torch.ones(3, device=group.device)
        name, operators = group.unique_name, torch.ops.vdist
        errors = []
        for call in (
            lambda: operators.all_reduce(three, "pipeline:0"),
            lambda: operators.all_gather(three, 0, 3, name),
            lambda: operators.reduce_scatterv(three, 0, [1, 2], 1 - group.rank_in_group, name),
            lambda: operators.reduce_scatter(three.to("meta"), 0, 2, name),
            lambda: custom_ops.Operators(name, 2, group.rank_in_group).all_gatherv(three, 0, None),
        ):
            try:
                call()
            except ValueError as error:
                errors.append(str(error))
        world.destroy()
        return errors

    rank0, _ = distributed_run(body, init_process_group=False)
    assert rank0 == [
        "no group 'pipeline:0' in this process: it was destroyed or never made; there are "
        "['tensor:0', 'world:0']",
        "group 'tensor:0' has 2 ranks, and the operator was called for 3: compile again for the group that "
        "has the name now",
        "rank_in_group=1 of reduce_scatterv, and this rank is 0 in group 'tensor:0': pass that, or compile "
        "again for the group that has the name now",
        "reduce_scatter of group 'tensor:0': size 3 of dim 0 does not divide by the world size 2; pad it, or "
        "use reduce_scatterv with sizes",
        "all_gatherv of group 'tensor:0' in compiled code needs sizes, one for each rank: pass them, or keep "
        "the call out of the compiled code (torch.compiler.disable)",
    ]
