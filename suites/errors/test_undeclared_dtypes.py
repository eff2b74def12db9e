"""Dtypes that nobody declared: refused by all ranks, or handled right by all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch

from pytest_vdist import Coordinator, CoordinatorRun
from pytest_vdist.judge.cases import Case, assert_cases

# torch warns once per process that complex32 is experimental.
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

REFUSED = "refused"


def undeclared(declared: Sequence[torch.dtype]) -> list[torch.dtype]:
    """Return the dtypes of this torch that are not declared and that hold the numbers 0 and 1."""
    everything = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    return sorted((dtype for dtype in everything - set(declared) if holds_bits(dtype)), key=str)


def holds_bits(dtype: torch.dtype) -> bool:
    """Tell whether 0 and 1 survive a conversion to the dtype; torch converts to some dtypes not at all."""
    numbers = torch.tensor([0.0, 1.0], dtype=torch.float64)
    try:
        return torch.equal(numbers.to(dtype).to(torch.complex128).real, numbers)
    except (RuntimeError, NotImplementedError):
        return False


def outcome(call: Callable[[], torch.Tensor]) -> str | list[float]:
    """Make the call and return its values, all real, or that it was refused."""
    try:
        output = call()
    except Exception:
        return REFUSED
    return output.cpu().to(torch.complex128).real.flatten().tolist()


def contribution(group: Coordinator, contributors: set[int], dtype: torch.dtype) -> torch.Tensor:
    """Return (1, 0, 1) on the contributing ranks of the group and zeros elsewhere."""
    values = [1.0, 0.0, 1.0] if group.rank_in_group in contributors else [0.0] * 3
    return torch.tensor(values).to(dtype).to(group.device)


def summands(world_size: int, dtype: torch.dtype) -> set[int]:
    """Return the ranks that contribute to a sum: two, unless their sum has no one meaning."""
    return {world_size - 1} if dtype == torch.bool else {0, world_size - 1}


def assert_refused_or_right(
    outcomes: Sequence[Sequence[str | list[float]]],
    dtypes: Sequence[torch.dtype],
    expected: Sequence[list[float]],
) -> None:
    assert dtypes, "every dtype is declared: there is nothing to refuse"
    for number, (dtype, right) in enumerate(zip(dtypes, expected, strict=True)):
        by_rank = [of_rank[number] for of_rank in outcomes]
        assert by_rank in ([REFUSED] * len(by_rank), [right] * len(by_rank)), (
            f"{dtype}: all ranks must refuse it or give {right}, got by rank {by_rank}"
        )


@pytest.mark.vdist_requirement("VD-ERR-007")
def test_sums_of_undeclared_dtypes_are_refused_or_right(
    coordinator_run: CoordinatorRun, world_size: int, reduction_dtypes: list[torch.dtype]
) -> None:
    """all_reduce of every other dtype of torch raises on all ranks or gives the sum on all."""
    dtypes = undeclared(reduction_dtypes)

    def body(group: Coordinator) -> list[str | list[float]]:
        inputs = [contribution(group, summands(world_size, dtype), dtype) for dtype in dtypes]
        return [outcome(partial(group.all_reduce, x)) for x in inputs]

    outcomes = coordinator_run(body, world_size=world_size)
    totals = [float(len(summands(world_size, dtype))) for dtype in dtypes]
    assert_refused_or_right(outcomes, dtypes, [[total, 0.0, total] for total in totals])
    assert_cases(coordinator_run, [Case("all_gather", (7,), torch.float32)], world_size=world_size)


@pytest.mark.vdist_requirement("VD-ERR-007")
def test_moves_of_undeclared_dtypes_are_refused_or_right(
    coordinator_run: CoordinatorRun, world_size: int, movement_dtypes: list[torch.dtype]
) -> None:
    """all_gather and broadcast of every other dtype raise on all ranks or move the values on all."""
    dtypes = undeclared(movement_dtypes)
    last = world_size - 1

    def gather(group: Coordinator) -> list[str | list[float]]:
        inputs = [contribution(group, {last}, dtype) for dtype in dtypes]
        return [outcome(partial(group.all_gather, x, dim=0)) for x in inputs]

    def broadcast(group: Coordinator) -> list[str | list[float]]:
        inputs = [contribution(group, {last}, dtype) for dtype in dtypes]
        return [outcome(partial(group.broadcast, x, src=last)) for x in inputs]

    gathered = coordinator_run(gather, world_size=world_size)
    broadcasts = coordinator_run(broadcast, world_size=world_size)
    assert_refused_or_right(gathered, dtypes, [[0.0] * 3 * last + [1.0, 0.0, 1.0]] * len(dtypes))
    assert_refused_or_right(broadcasts, dtypes, [[1.0, 0.0, 1.0]] * len(dtypes))
    assert_cases(coordinator_run, [Case("all_gather", (7,), torch.float32)], world_size=world_size)
