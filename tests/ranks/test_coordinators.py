"""Coordinators of several groups within one run."""

from __future__ import annotations

import pytest

from pytest_vdist import Coordinator, CoordinatorRun, DistributedRun, RanksFailedError, coordinator

ROWS, COLUMNS = [[0, 1], [2, 3]], [[0, 2], [1, 3]]


def test_a_function_gets_coordinators_of_further_groups(coordinator_run: CoordinatorRun) -> None:
    def body(row: Coordinator) -> tuple[list[int], list[int], list[int]]:
        column = coordinator(COLUMNS)
        seen = [column.broadcast_object(row.broadcast_object(row.rank, src=1), src=src) for src in (0, 1)]
        return row.ranks, column.ranks, seen

    assert coordinator_run(body, world_size=4, group_ranks=ROWS) == [
        ([0, 1], [0, 2], [1, 3]),
        ([0, 1], [1, 3], [1, 3]),
        ([2, 3], [0, 2], [1, 3]),
        ([2, 3], [1, 3], [1, 3]),
    ]


def test_the_coordinator_of_a_group_is_made_once(coordinator_run: CoordinatorRun) -> None:
    def names(row: Coordinator) -> tuple[str, str, str]:
        return row.unique_name, coordinator(ROWS).unique_name, coordinator(COLUMNS).unique_name

    first = coordinator_run(names, world_size=4, group_ranks=ROWS)
    second = coordinator_run(names, world_size=4, group_ranks=ROWS)

    assert first == second
    assert all(row == again != column for row, again, column in first)


def test_without_an_implementation_there_is_no_coordinator(distributed_run: DistributedRun) -> None:
    with pytest.raises(RanksFailedError, match="this run has no implementation under test"):
        distributed_run(lambda: coordinator([[0, 1]]), world_size=2)


def test_in_the_controller_there_is_no_coordinator() -> None:
    with pytest.raises(RuntimeError, match="there is no world in this process: it is no rank"):
        coordinator([[0, 1]])
