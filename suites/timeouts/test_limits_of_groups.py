"""The limits that groups have, read from the groups themselves: nothing waits for one here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    process_group_timeout,
)

CPU = torch.device("cpu")

Found = dict[str, tuple[float | None, float | None]]
"""By name of a group: the limits of its device group and of its CPU group, in seconds."""


def limits_for(capabilities: Capabilities) -> tuple[float, float]:
    """Return limits of device and CPU, with fractions of a second unless these are declared unsupported."""
    return (77.5, 33.25) if capabilities.supports("process_group_fractions") else (77.0, 33.0)


def limits_of(group: Any) -> tuple[float | None, float | None]:
    return process_group_timeout(group.device_group, group.device), process_group_timeout(
        group.cpu_group, CPU
    )


def partitions(world_size: int) -> dict[str, list[list[int]]]:
    ranks = list(range(world_size))
    return {
        "all ranks": [ranks],
        "ranks from the last to the first": [ranks[::-1]],
        "every second rank": [part for part in (ranks[::2], ranks[1::2]) if part],
        "one rank each": [[rank] for rank in ranks],
    }


def every_kind_of_group(make: Any, world_size: int) -> Found:
    found: Found = {}
    for name, group_ranks in partitions(world_size).items():
        group = make(group_ranks, name="group")
        found[name] = limits_of(group)
        if hasattr(group, "make_sibling_device_group"):
            sibling = group.make_sibling_device_group()
            found[f"sibling of {name}"] = (process_group_timeout(sibling, group.device), found[name][1])
            group.barrier()  # nobody destroys what others are still making
            dist.destroy_process_group(sibling)
        group.barrier()
        group.destroy()
        found[f"{name}, made again"] = limits_of(make(group_ranks, name="group"))
    return found


def shows_groups(group: Coordinator) -> bool:
    return hasattr(group, "device_group") and hasattr(group, "cpu_group")


def read_limits(
    implementation: ImplementationSpec,
    split_group: bool,
    limits: tuple[float | None, float | None],
    init_method: str,
) -> tuple[Found, tuple[float | None, float | None]] | None:
    """Return the limits of every kind of group, and those of a group that torch makes with none given."""
    here, world = current_rank(), implementation.load()
    settings = replace(init_settings(init_method), split_group=split_group)
    world.init(replace(settings, timeout=limits[0], cpu_timeout=limits[1]))
    first = world.coordinator([list(range(here.world_size))], name="first")
    if not shows_groups(first):
        first.barrier()
        world.destroy()
        return None
    own = dist.new_group(backend=_backends(here.device))
    of_torch = process_group_timeout(own, here.device), process_group_timeout(own, CPU)
    found = every_kind_of_group(world.coordinator, here.world_size)
    found["the first one, read last"] = limits_of(first)
    first.barrier()
    world.destroy()
    return found, of_torch


def _backends(device: torch.device) -> str:
    types: Sequence[str] = list(dict.fromkeys(("cpu", device.type)))
    return ",".join(f"{each}:{dist.get_default_backend_for_device(each)}" for each in types)


def found_in(
    results: list[Any], capabilities: Capabilities
) -> list[tuple[Found, tuple[float | None, float | None]]]:
    """Return what the ranks found; coordinators that show no groups must be declared to show none."""
    hidden = [rank for rank, found in enumerate(results) if found is None]
    if len(hidden) == len(results) and not capabilities.supports("process_groups"):
        pytest.skip(f"unsupported: process_groups: {capabilities.unsupported['process_groups']}")
    assert not hidden, (
        f"the coordinators of rank(s) {hidden} show no device_group and cpu_group, whose limits are read; "
        "show them, or declare 'process_groups' in Capabilities.unsupported, with the reason"
    )
    return results


@pytest.mark.vdist_world_size(max=4, largest_only=True)
@pytest.mark.vdist_requirement("VD-TMO-005")
def test_every_group_has_the_limits_of_the_world(  # noqa: PLR0917 - fixtures
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    capabilities: Capabilities,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
) -> None:
    """Subgroups of any ranks, siblings and groups made again have the limits that the world was made with."""
    limits = limits_for(capabilities)
    results = distributed_run(
        read_limits,
        implementation,
        split_group,
        limits,
        f"file://{tmp_path}/world",
        world_size=world_size,
        init_process_group=False,
    )
    for rank, (found, _) in enumerate(found_in(results, capabilities)):
        assert found == dict.fromkeys(found, limits), f"rank {rank}"
        assert len(found) > len(partitions(world_size))


@pytest.mark.vdist_world_size(min=1, max=2)
@pytest.mark.vdist_requirement("VD-TMO-006")
@pytest.mark.parametrize("given", ["neither", "device only", "CPU only"])
def test_without_a_limit_the_backends_own_holds(  # noqa: PLR0917 - fixtures
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    capabilities: Capabilities,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
    given: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a limit is not set, groups have the one that torch gives them by itself."""
    for variable in ("VDIST_DISTRIBUTED_TIMEOUT_SECONDS", "VDIST_CPU_DISTRIBUTED_TIMEOUT_SECONDS"):
        monkeypatch.delenv(variable, raising=False)
    device_seconds, cpu_seconds = limits_for(capabilities)
    limits = (
        device_seconds if given == "device only" else None,
        cpu_seconds if given == "CPU only" else None,
    )
    results = distributed_run(
        read_limits,
        implementation,
        split_group,
        limits,
        f"file://{tmp_path}/world",
        world_size=world_size,
        init_process_group=False,
    )
    for rank, (found, of_torch) in enumerate(found_in(results, capabilities)):
        expected = (limits[0] or of_torch[0], limits[1] or of_torch[1])
        assert found == dict.fromkeys(found, expected), f"rank {rank}"
