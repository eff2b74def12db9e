"""Operators that do collectives in compiled code: what their schemas and fake implementations promise."""

from __future__ import annotations

import pytest
import torch

from pytest_vdist import Capabilities, Coordinator, CoordinatorRun, coordinator
from pytest_vdist.judge import operators as judge
from pytest_vdist.judge.operators import OperatorCase

NONE_DECLARED = "unsupported: the implementation declares no operators (Capabilities.operators)"


def declared_cases(
    capabilities: Capabilities, reduction_dtypes: list[torch.dtype], movement_dtypes: list[torch.dtype]
) -> list[OperatorCase]:
    if not capabilities.operators:
        pytest.skip(NONE_DECLARED)
    return [
        case
        for operation, name in capabilities.operators.items()
        for case in judge.cases_of(
            operation, name, reduction_dtypes if operation in judge.REDUCTIONS else movement_dtypes
        )
    ]


@pytest.mark.vdist_world_size(max=2)
@pytest.mark.vdist_requirement("VD-CMP-013", "VD-CMP-014")
def test_operators_do_what_they_declare(
    coordinator_run: CoordinatorRun,
    world_size: int,
    capabilities: Capabilities,
    reduction_dtypes: list[torch.dtype],
    movement_dtypes: list[torch.dtype],
) -> None:
    """For every operator, dimension and dtype: aliases and writes as in the schema, the fake as the real."""
    cases = declared_cases(capabilities, reduction_dtypes, movement_dtypes)
    by_rank = coordinator_run(judge.check, cases, world_size=world_size)
    findings = [f"rank {rank}: {finding}" for rank, found in enumerate(by_rank) for finding in found]
    assert not findings, "\n".join(findings)


@pytest.mark.vdist_world_size(min=2, max=2)
@pytest.mark.vdist_requirement("VD-CMP-015")
def test_operators_find_their_group_by_name(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """Called by name, each of two groups sums its own ranks; a name that nobody has is refused by name."""
    if "all_reduce" not in capabilities.operators:
        pytest.skip("unsupported: the implementation declares no operator for all_reduce")
    case = OperatorCase("all_reduce", capabilities.operators["all_reduce"], torch.float32)

    def body(everyone: Coordinator) -> tuple[list[float], str]:
        mine = torch.tensor([float(everyone.rank + 1)], device=everyone.device)
        alone = coordinator([[0], [1]])
        sums = [float(judge.call(case, group, mine)) for group in (everyone, alone, everyone, alone)]
        try:
            judge.call(case, everyone, mine, group_name="nobody:7")
        except Exception as error:
            return sums, str(error)
        return sums, ""

    for rank, (sums, error) in enumerate(coordinator_run(body, world_size=world_size)):
        assert sums == [3.0, rank + 1.0, 3.0, rank + 1.0], f"rank {rank}"
        assert "nobody:7" in error, f"rank {rank} was not told the name of the group: {error!r}"
