"""What torch is asked for when groups are split off: by every rank the same, and no more than is needed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import (
    Coordinator,
    CoordinatorRun,
    DistributedRun,
    ImplementationSpec,
    current_rank,
    init_settings,
)

Groups = list[list[int]]


@contextmanager
def noted_splits() -> Iterator[list[Groups]]:
    """Give the lists of ranks that this rank passes to torch.distributed.split_group."""
    original, noted = dist.split_group, []

    @functools.wraps(original)
    def split_group(*args: Any, **kwargs: Any) -> Any:
        passed = inspect.signature(original).bind(*args, **kwargs).arguments
        noted.append([sorted(ranks) for ranks in passed["split_ranks"]])
        return original(*args, **kwargs)

    dist.split_group = split_group
    try:
        yield noted
    finally:
        dist.split_group = original


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-SPL-011")
def test_every_rank_names_the_groups_of_all_ranks(
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
) -> None:
    """Ranks pass the same lists to split_group, as communicators that split by colour need them to."""
    ranks = list(range(world_size))
    strided = [ranks[::-2], ranks[-2::-2]]

    def body(init_method: str) -> tuple[list[Groups], list[float]]:
        world = implementation.load()
        with noted_splits() as splits:
            world.init(replace(init_settings(init_method), split_group=split_group))
            group = world.coordinator(strided, name="strided")
        gathered = group.all_gather(torch.tensor([float(group.rank)], device=group.device)).tolist()
        group.barrier()
        world.destroy()
        return splits, gathered

    by_rank = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    first, _ = by_rank[0]
    assert bool(first) == split_group, f"rank 0 passed {first} to split_group"
    for rank, (splits, gathered) in enumerate(by_rank):
        assert splits == first, f"rank {rank} passed other lists to split_group than rank 0"
        assert gathered == next(members for members in strided if rank in members)


@pytest.mark.vdist_requirement("VD-SPL-012")
def test_the_device_group_serves_the_device_alone(
    coordinator_run: CoordinatorRun, world_size: int, split_group: bool
) -> None:
    """A device group that the coordinator shows has a backend for its device only, if torch can do that."""

    def body(group: Coordinator) -> tuple[str, set[str]]:
        device_type = current_rank().device.type
        shown = getattr(group, "device_group", None)
        if not isinstance(shown, dist.ProcessGroup):
            return device_type, {device_type}
        return device_type, {part.split(":")[0] for part in dist.get_backend_config(shown).split(",")}

    takes_backend = "backend" in inspect.signature(dist.split_group).parameters
    extra = {"cpu"} if split_group and not takes_backend else set()
    for rank, (device_type, served) in enumerate(coordinator_run(body, world_size=world_size)):
        assert device_type in served, f"rank {rank}"
        assert served <= {device_type} | extra, f"rank {rank}"
