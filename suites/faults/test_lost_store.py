"""The host of the store ends, which is where ranks agree on new groups: they learn of it in time."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import ImplementationSpec, OutcomesRun, current_rank, init_settings
from pytest_vdist.faults.meeting import Meeting
from pytest_vdist.faults.record import Recorder
from pytest_vdist.faults.waits import TYPED_ERRORS, Ended, Limit, attempt

LIMIT = Limit(2.0, slack=5.0)  # as for lost ranks
DEADLINE = 60.0
HOST = 0

pytestmark = pytest.mark.vdist_world_size(min=2, max=3, largest_only=True)


@dataclass(frozen=True)
class Seen:
    """What a survivor saw: a sum in a group that lives, a new group, and the ranks of the next world."""

    sum: Ended
    creation: Ended
    ranks_again: list[int]


def default_group(meeting: Meeting, everyone: list[int]) -> None:
    """Make torch's default group over a store in rank HOST, as a launcher does."""
    here = current_rank()
    store_type: Any = dist.TCPStore  # type: ignore[attr-defined]
    if here.rank == HOST:
        store = store_type("127.0.0.1", 0, len(everyone), is_master=True, wait_for_workers=False)
        meeting.arrive("port", str(store.port))
    else:
        port = int(meeting.await_ranks("port", [HOST])[HOST])
        store = store_type("127.0.0.1", port, len(everyone), is_master=False)
    devices = dict.fromkeys(("cpu", here.device.type))
    dist.init_process_group(
        ",".join(f"{device}:{dist.get_default_backend_for_device(device)}" for device in devices),
        store=store,
        rank=here.rank,
        world_size=here.world_size,
        timeout=timedelta(seconds=LIMIT.seconds),
        device_id=None if here.device.type == "cpu" else here.device,
    )


def lose_the_store(implementation: ImplementationSpec, split_group: bool, folder: str) -> Seen:
    here, world = current_rank(), implementation.load()
    everyone = list(range(here.world_size))
    survivors = [rank for rank in everyone if rank != HOST]
    meeting = Meeting(f"{folder}/meeting", here.rank)
    meeting.gather("loaded", everyone)
    default_group(meeting, everyone)
    settings = replace(init_settings("file:///nowhere"), split_group=split_group)
    world.init(replace(settings, timeout=LIMIT.seconds, cpu_timeout=LIMIT.seconds))
    group = world.coordinator([[HOST], survivors], name="group")
    own = torch.tensor([10.0 * here.rank], device=group.device)
    assert group.all_reduce(own.clone()).tolist() == [10.0 * sum(group.ranks)]
    meeting.gather("ready", everyone)
    if here.rank == HOST:
        os.kill(os.getpid(), signal.SIGKILL)
    creation = attempt("coordinator", lambda: world.coordinator([[HOST], survivors], name="new"))
    # The old group is asked last: it has its connections, and a store that is gone need not concern it.
    total = attempt("all_reduce", lambda: group.all_reduce(own.clone()).tolist())
    meeting.gather("ended", survivors)
    world.destroy()
    if dist.is_initialized():
        dist.destroy_process_group()
    again = replace(
        init_settings(f"file://{folder}/again"), rank=survivors.index(here.rank), world_size=len(survivors)
    )
    world.init(again)
    new = world.coordinator([list(range(len(survivors)))], name="again")
    ranks_again = [new.broadcast_object(here.rank, src=rank) for rank in range(len(survivors))]
    world.destroy()
    return Seen(total, creation, ranks_again)


@pytest.mark.vdist_requirement("VD-FLT-005", "VD-FLT-007")
def test_where_the_store_is_gone_new_groups_are_refused_in_time(  # noqa: PLR0917 - fixtures
    outcomes_run: OutcomesRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
    request: pytest.FixtureRequest,
) -> None:
    """New groups end in an error, sums in a group that lives are right or an error, and a new world works."""
    outcomes = outcomes_run(
        lose_the_store, implementation, split_group, str(tmp_path), world_size=world_size, timeout=DEADLINE
    )
    survivors = [rank for rank in range(world_size) if rank != HOST]
    assert (outcomes[HOST].state, outcomes[HOST].reason) == ("died", "killed by SIGKILL")
    table = Recorder(request.node.user_properties)
    for rank in survivors:
        assert outcomes[rank].state == "returned", outcomes[rank]
        seen: Seen = outcomes[rank].value
        table.add("store lost", rank, (seen.creation, seen.sum))
        assert TYPED_ERRORS & set(seen.creation.kinds), f"rank {rank}: {seen.creation}"
        assert seen.creation.seconds <= LIMIT.latest, f"rank {rank}: {seen.creation}"
        assert seen.sum.seconds <= LIMIT.latest, f"rank {rank}: {seen.sum}"
        assert seen.sum.raised or seen.sum.value == [10.0 * sum(survivors)], f"rank {rank}: {seen.sum}"
        assert seen.ranks_again == survivors, f"rank {rank}"
