"""More ranks than devices: who gets which, and what is refused; on two simulated devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import current_rank
from pytest_vdist.backends.registry import require_devices
from pytest_vdist.backends.simdev import BACKEND
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool

SHARING = replace(BACKEND, name="shared", sharing_environment={"HOST_AS_SEEN": "host-{node}"})
NAMES = ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "SIMDEV_VISIBLE_DEVICES", "HOST_AS_SEEN")


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    """Give ranks on two devices, up to two on each."""
    require_devices(BACKEND, origin="these tests")
    with closing(RankPool(SHARING, 2, ranks_per_device=2)) as made:
        yield made


def tell() -> tuple[Any, ...]:
    here = current_rank()
    x = torch.full((2,), here.rank + 1.0, device=here.device)
    dist.all_reduce(x)
    return (*x.tolist(), str(here.device), here.node, *(os.environ.get(name) for name in NAMES))


def run(pool: RankPool, world_size: int, function: Any = tell) -> list[Any]:
    world = WorldSpec(BACKEND.device_type, process_group_backend=BACKEND.process_group_backend)
    return pool.run(function, (), {}, world=world, world_size=world_size, timeout=30.0)


def test_ranks_beyond_the_devices_are_placed_as_on_further_nodes(pool: RankPool) -> None:
    assert run(pool, 3) == [
        (6.0, 6.0, "simdev:0", 0, "0", "2", "0", "0,1", "host-0"),
        (6.0, 6.0, "simdev:1", 0, "1", "2", "0", "0,1", "host-0"),
        (6.0, 6.0, "simdev:0", 1, "0", "1", "1", "0,1", "host-1"),
    ]


def test_ranks_that_have_a_device_each_are_told_nothing_of_sharing(pool: RankPool) -> None:
    assert run(pool, 2) == [
        (3.0, 3.0, "simdev:0", 0, "0", "2", "0", "0,1", None),
        (3.0, 3.0, "simdev:1", 0, "1", "2", "0", "0,1", None),
    ]


def test_ranks_that_share_stay_warm_beside_those_that_do_not(pool: RankPool) -> None:
    shared, alone = run(pool, 4, os.getpid), run(pool, 2, os.getpid)
    assert (run(pool, 4, os.getpid), run(pool, 2, os.getpid)) == (shared, alone)


def test_more_ranks_than_may_share_are_refused(pool: RankPool) -> None:
    with pytest.raises(ValueError, match="world_size=5") as refused:
        run(pool, 5)
    assert str(refused.value) == (
        "world_size=5 needs 5 devices of backend 'shared', this machine has 2, each for up to 2 ranks; ask "
        "for fewer, mark the test, or pass --vdist-ranks-per-device=3"
    )
