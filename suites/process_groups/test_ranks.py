"""Which ranks a process group has: both numbers of each, and what is said of a rank outside."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from pytest_vdist.process_groups.judgement import GroupRun


@pytest.mark.vdist_requirement("VD-PG-018")
@pytest.mark.parametrize("every", [1, 2])
def test_both_numbers_of_every_rank_are_known(
    process_group_run: GroupRun, world_size: int, every: int
) -> None:
    """Rank, size and members are those of the group, global and group ranks match, strangers are refused."""
    groups = [list(range(first, world_size, every)) for first in range(min(every, world_size))]

    def body(group: dist.ProcessGroup, _: torch.device) -> list[str]:
        here = dist.get_rank()
        ranks = next(ranks for ranks in groups if here in ranks)
        stated = {
            "get_process_group_ranks": (dist.get_process_group_ranks(group), ranks),
            "get_world_size": (dist.get_world_size(group), len(ranks)),
            "get_rank": (dist.get_rank(group), ranks.index(here)),
            "get_global_rank": ([dist.get_global_rank(group, place) for place in range(len(ranks))], ranks),
            "get_group_rank": ([dist.get_group_rank(group, rank) for rank in ranks], [*range(len(ranks))]),
        }
        found = [f"{name} says {got}, not {want}" for name, (got, want) in stated.items() if got != want]
        strangers = [rank for rank in range(world_size + 1) if rank not in ranks]
        for ask, wrong in ((dist.get_group_rank, strangers), (dist.get_global_rank, [len(ranks)])):
            for rank in wrong:
                try:
                    found.append(f"{ask.__name__} of {rank}, which is not in {ranks}: {ask(group, rank)}")
                except (ValueError, RuntimeError, KeyError, IndexError):
                    continue
        return found

    assert process_group_run(body, world_size=world_size, group_ranks=groups) == [[]] * world_size
