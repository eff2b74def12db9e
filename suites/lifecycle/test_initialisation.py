"""Initialisation: who each rank is, which process-group backend it gets, and what a second call does."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import (
    Coordinator,
    DistributedRun,
    Implementation,
    ImplementationSpec,
    current_rank,
    init_settings,
    process_group_backend,
)

UNKNOWN_BACKEND = "vdist-no-such-backend"


def everyone(world: Implementation) -> Coordinator:
    return world.coordinator([list(range(current_rank().world_size))], name="everyone")


def ranks_by_all_gather(group: Coordinator) -> list[float]:
    return group.all_gather(torch.tensor([float(group.rank)], device=group.device)).tolist()


@pytest.mark.vdist_requirement("VD-INIT-001")
def test_every_rank_reports_the_numbers_that_it_was_given(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """Rank and world size are those of the settings, also where the environment says otherwise."""

    def body(init_method: str) -> tuple[list[int], list[float]]:
        here = init_settings(init_method)
        world = implementation.load()
        world.init(replace(here, rank=here.world_size - 1 - here.rank))
        group = everyone(world)
        numbers = [group.rank, group.rank_in_group, dist.get_rank(), group.world_size, dist.get_world_size()]
        gathered = ranks_by_all_gather(group)
        world.destroy()
        return numbers, gathered

    results = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    ranks = list(range(world_size))
    assert results == [([rank] * 3 + [world_size] * 2, ranks) for rank in reversed(ranks)]


@pytest.mark.vdist_requirement("VD-INIT-002", "VD-INIT-010")
def test_without_a_name_the_backend_is_that_of_the_device(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """The default group moves tensors of the rank's device with the backend that belongs to that device."""

    def body(init_method: str) -> tuple[set[str], bool, list[float]]:
        world = implementation.load()
        world.init(init_settings(init_method))
        group = everyone(world)
        used = {process_group_backend()}
        device_group = getattr(group, "device_group", None)
        if isinstance(device_group, dist.ProcessGroup):
            used.add(process_group_backend(device_group))
        on_own_device = torch.empty(0, device=group.device).device == current_rank().device
        gathered = ranks_by_all_gather(group)
        world.destroy()
        return used, on_own_device, gathered

    (named, *_) = distributed_run(process_group_backend, world_size=world_size)
    results = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    assert results == [({named}, True, list(range(world_size)))] * world_size


@pytest.mark.vdist_requirement("VD-INIT-003")
def test_a_named_backend_is_used(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """The default group is made with the backend that is named, and works."""

    def body(init_method: str) -> tuple[bool, str, list[float]]:
        name = dist.get_default_backend_for_device(current_rank().device)
        world = implementation.load()
        world.init(replace(init_settings(init_method), backend=name))
        asked_for, used = dist.get_backend() == name, process_group_backend()
        gathered = ranks_by_all_gather(everyone(world))
        world.destroy()
        return asked_for, used, gathered

    (used, *_) = distributed_run(process_group_backend, world_size=world_size)
    results = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    assert results == [(True, used, list(range(world_size)))] * world_size


@pytest.mark.vdist_requirement("VD-INIT-003")
def test_a_backend_that_does_not_exist_is_refused(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """A named backend that torch does not know is refused by name, not replaced by another."""

    def body(init_method: str) -> tuple[str, bool]:
        world = implementation.load()
        error = ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns of it, before it refuses
            try:
                world.init(replace(init_settings(init_method), backend=UNKNOWN_BACKEND))
            except Exception as raised:
                error = str(raised)
        left_over = dist.is_initialized()
        world.destroy()
        return error, left_over

    results = distributed_run(
        body, f"file://{tmp_path}/refused", world_size=world_size, init_process_group=False
    )
    for rank, (error, left_over) in enumerate(results):
        assert UNKNOWN_BACKEND in error, (
            f"rank {rank}: no error that names {UNKNOWN_BACKEND!r}, got {error!r}"
        )
        assert not left_over, f"rank {rank}: the refused initialisation left a default process group"


@pytest.mark.vdist_requirement("VD-INIT-004")
def test_a_default_group_of_the_caller_is_kept(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """Where the caller made the default process group, initialisation uses that very group."""

    def body(init_method: str) -> tuple[bool, list[float]]:
        made_by_caller = dist.group.WORLD
        world = implementation.load()
        world.init(init_settings(init_method))
        kept = dist.group.WORLD is made_by_caller
        gathered = ranks_by_all_gather(everyone(world))
        world.destroy()
        return kept, gathered

    results = distributed_run(body, f"file://{tmp_path}/unused", world_size=world_size)
    assert results == [(True, list(range(world_size)))] * world_size


@pytest.mark.vdist_requirement("VD-INIT-005")
def test_initialising_again_with_the_same_settings_changes_nothing(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """The second call keeps the default group, and coordinators from before and after it work."""

    def body(init_method: str) -> tuple[bool, list[float], list[float]]:
        world, settings = implementation.load(), init_settings(init_method)
        world.init(settings)
        default_group, before = dist.group.WORLD, everyone(world)
        world.init(settings)
        kept, after = dist.group.WORLD is default_group, everyone(world)
        gathered = ranks_by_all_gather(before), ranks_by_all_gather(after)
        world.destroy()
        return kept, *gathered

    ranks = list(range(world_size))
    results = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    assert results == [(True, ranks, ranks)] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-INIT-006")
def test_another_world_size_is_refused_with_both_sizes(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """A second initialisation with another world size raises an error naming both; the world goes on."""
    other_size = world_size + 70

    def body(init_method: str) -> tuple[str, list[float]]:
        world, settings = implementation.load(), init_settings(init_method)
        world.init(settings)
        group, error = everyone(world), ""
        try:
            world.init(replace(settings, world_size=other_size))
        except Exception as raised:
            error = str(raised)
        gathered = ranks_by_all_gather(group)
        world.destroy()
        return error, gathered

    results = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    for rank, (error, gathered) in enumerate(results):
        numbers = {int(number) for number in re.findall(r"\d+", error)}
        assert {world_size, other_size} <= numbers, (
            f"rank {rank}: the error must name the world sizes {world_size} and {other_size}, got {error!r}"
        )
        assert gathered == list(range(world_size))
