"""What subgroups are made from: a default process group, which torch can split on the device or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import (
    Capabilities,
    Coordinator,
    DistributedRun,
    ImplementationSpec,
    current_rank,
    init_settings,
)


def splittable_backend() -> str:
    """Return the backends, of the CPU and of the rank's device, that a default group to be split has."""
    devices = dict.fromkeys(("cpu", current_rank().device.type))
    return ",".join(f"{device}:{dist.get_default_backend_for_device(device)}" for device in devices)


def ranks_by_all_gather(group: Coordinator) -> list[float]:
    return group.all_gather(torch.tensor([float(group.rank)], device=group.device)).tolist()


@pytest.mark.vdist_requirement("VD-SPL-010")
def test_a_device_splits_groups_as_it_is_declared(
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    capabilities: Capabilities,
    tmp_path: Path,
    world_size: int,
) -> None:
    """Where split_group is unsupported, asking for it is refused on each rank by itself; else it works."""
    supported = capabilities.supports("split_group")

    def body(folder: str) -> tuple[str, bool, list[float]]:
        here, world, error = current_rank(), implementation.load(), ""
        # Ranks that must refuse meet nobody: one that waited for the others first would never return.
        place = "world" if supported else f"rank-{here.rank}"
        gathered: list[float] = []
        try:
            world.init(replace(init_settings(f"file://{folder}/{place}"), split_group=True))
            gathered = ranks_by_all_gather(world.coordinator([list(range(world_size))], name="all"))
        except Exception as raised:
            error = str(raised) or type(raised).__name__
        left_over = not supported and dist.is_initialized()
        world.destroy()
        return error, left_over, gathered

    by_rank = distributed_run(body, str(tmp_path), world_size=world_size, init_process_group=False)
    if supported:
        assert by_rank == [("", False, list(range(world_size)))] * world_size
        return
    for rank, (error, left_over, _) in enumerate(by_rank):
        assert "split_group" in error, f"rank {rank}: the error must name split_group, got {error!r}"
        assert not left_over, f"rank {rank}: the refusal left a default process group"


@pytest.mark.vdist_requirement("VD-SPL-008")
def test_a_default_group_that_can_be_split_is_taken(
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
) -> None:
    """A caller's default group with backends for CPU and device, bound to the device, serves either way."""

    def body(init_method: str) -> tuple[bool, list[float], bool]:
        here = current_rank()
        dist.init_process_group(
            splittable_backend(),
            init_method=init_method,
            rank=here.rank,
            world_size=here.world_size,
            device_id=None if here.device.type == "cpu" else here.device,
        )
        made_by_caller = dist.group.WORLD
        world = implementation.load()
        world.init(replace(init_settings("file:///nowhere"), split_group=split_group))
        group = world.coordinator([list(range(world_size))[::-1]], name="all")
        gathered = ranks_by_all_gather(group)
        group.barrier()
        kept = dist.group.WORLD is made_by_caller
        world.destroy()
        return kept, gathered, dist.is_initialized()

    by_rank = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    assert [(kept, gathered) for kept, gathered, _ in by_rank] == [
        (True, list(range(world_size))[::-1])
    ] * world_size


@pytest.mark.vdist_requirement("VD-SPL-009")
@pytest.mark.parametrize("missing", ["device_id", "cpu"])
def test_a_default_group_that_cannot_be_split_is_refused(  # noqa: PLR0917 - fixtures
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
    missing: str,
) -> None:
    """A caller's default group that lacks what splitting needs: an error says with what to make it.

    Where groups are not split, such a default group serves, as it does on a device that needs neither.
    """

    def body(init_method: str) -> tuple[str, str, str, list[float]]:
        here, error, gathered = current_rank(), "", [-1.0]
        device = here.device
        own = dist.get_default_backend_for_device(device)
        dist.init_process_group(
            splittable_backend() if missing == "device_id" else own,
            init_method=init_method,
            rank=here.rank,
            world_size=here.world_size,
            device_id=None if missing == "device_id" or device.type == "cpu" else device,
        )
        world = implementation.load()
        try:
            world.init(replace(init_settings("file:///nowhere"), split_group=split_group))
            group = world.coordinator([list(range(world_size))], name="all")
            gathered = ranks_by_all_gather(group)
            group.barrier()
        except Exception as raised:
            error = str(raised) or type(raised).__name__
        world.destroy()
        return device.type, splittable_backend(), error, gathered

    by_rank = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    for rank, (device_type, backend, error, gathered) in enumerate(by_rank):
        if not split_group or device_type == "cpu":
            assert (error, gathered) == ("", list(range(world_size))), f"rank {rank}"
        else:
            for argument in ("device_id", backend):
                assert argument in error, (
                    f"rank {rank}: the error must say to pass {argument!r}, got {error!r}"
                )
