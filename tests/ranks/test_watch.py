"""What is noted of the calls that a rank makes."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import DistributedRun, RanksHungError, unwatched
from pytest_vdist.ranks.world import current_world


def test_calls_are_counted_but_for_those_that_are_not_watched(distributed_run: DistributedRun) -> None:
    def body() -> list[int]:
        counts = [sum(current_world().calls().values())]
        for _ in range(2):
            dist.all_reduce(torch.ones(2))
            counts.append(sum(current_world().calls().values()))
            with unwatched():
                dist.all_reduce(torch.ones(2), async_op=True).wait()
                counts.append(sum(current_world().calls().values()))
        return counts

    assert distributed_run(body) == [[0, 1, 1, 2, 2]] * 2


def test_a_pause_within_a_pause_does_not_end_it(distributed_run: DistributedRun) -> None:
    def body() -> int:
        with unwatched():
            with unwatched():
                pass
            dist.all_reduce(torch.ones(2))
        return sum(current_world().calls().values())

    assert distributed_run(body) == [0, 0]


def test_a_pause_that_a_function_leaves_open_ends_with_its_run(distributed_run: DistributedRun) -> None:
    def leave_it_open() -> None:
        unwatched().__enter__()

    def body() -> int:
        dist.all_reduce(torch.ones(2))
        return sum(current_world().calls().values())

    distributed_run(leave_it_open)
    assert distributed_run(body) == [1, 1]


def test_a_hang_names_the_last_call_that_was_watched(distributed_run: DistributedRun) -> None:
    def body() -> None:
        dist.barrier()
        with unwatched():
            if dist.get_rank() == 0:
                dist.all_reduce(torch.ones(2))
            else:
                dist.all_reduce(torch.ones(2), group=dist.new_group([0, 1]))

    with pytest.raises(RanksHungError, match="rank 0 is after barrier #1 of group default_pg, at body"):
        distributed_run(body, timeout=3)


def test_only_ranks_have_calls_that_are_watched() -> None:
    with pytest.raises(RuntimeError, match="there is no world in this process: it is no rank"):
        unwatched()
