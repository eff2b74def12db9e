"""Destruction: nothing is left, and the same processes can begin again."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import Coordinator, DistributedRun, ImplementationSpec, InitSettings, init_settings


def ranks_by_all_gather(group: Coordinator) -> list[float]:
    return group.all_gather(torch.tensor([float(group.rank)], device=group.device)).tolist()


@pytest.mark.vdist_requirement("VD-INIT-007", "VD-GRP-008")
def test_the_same_processes_make_one_world_after_another(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """Worlds of all ranks, of one rank each, and of all ranks again work, and each leaves nothing.

    In the world of one rank each, ranks make different numbers of coordinators; in the next world their names
    agree nevertheless.
    """

    def live(settings: InitSettings, coordinators: int) -> tuple[list[float], list[str], bool]:
        world = implementation.load()
        world.init(settings)
        everyone = [list(range(settings.world_size))]
        groups = [world.coordinator(everyone, name="everyone") for _ in range(coordinators)]
        gathered, names = ranks_by_all_gather(groups[-1]), [group.unique_name for group in groups]
        world.destroy()
        return gathered, names, dist.is_initialized()

    def body(folder: str) -> list[tuple[list[float], list[str], bool]]:
        first, last = (init_settings(f"file://{folder}/{name}") for name in ("first", "last"))
        alone = replace(first, rank=0, world_size=1, init_method=f"file://{folder}/alone-{first.rank}")
        return [live(first, 1), live(alone, 1 + first.rank), live(last, 2)]

    results = distributed_run(body, str(tmp_path), world_size=world_size, init_process_group=False)
    ranks = list(range(world_size))
    for by_world in results:
        assert [gathered for gathered, _, _ in by_world] == [ranks, [0], ranks]
        assert [left_over for _, _, left_over in by_world] == [False] * 3
    for number in (0, 2):
        assert len({tuple(by_world[number][1]) for by_world in results}) == 1, "names differ between ranks"


@pytest.mark.vdist_requirement("VD-INIT-008")
def test_destroying_twice_is_harmless(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """A second destruction does nothing, and a world that is made after it works."""

    def body(folder: str) -> tuple[bool, list[float]]:
        world = implementation.load()
        world.init(init_settings(f"file://{folder}/first"))
        world.coordinator([list(range(world_size))], name="everyone").barrier()
        world.destroy()
        world.destroy()
        left_over = dist.is_initialized()
        world.init(init_settings(f"file://{folder}/second"))
        gathered = ranks_by_all_gather(world.coordinator([list(range(world_size))], name="everyone"))
        world.destroy()
        return left_over, gathered

    results = distributed_run(body, str(tmp_path), world_size=world_size, init_process_group=False)
    assert results == [(False, list(range(world_size)))] * world_size


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-INIT-011")
def test_a_world_ends_though_ranks_have_forgotten_different_coordinators(
    distributed_run: DistributedRun, implementation: ImplementationSpec, tmp_path: Path, world_size: int
) -> None:
    """Each rank keeps another coordinator and forgets the rest: all worlds end, and the next works."""

    def body(folder: str) -> list[float]:
        settings = init_settings(f"file://{folder}/first")
        world = implementation.load()
        world.init(settings)
        everyone = [list(range(world_size))]
        groups = {number: world.coordinator(everyone, name="everyone") for number in range(world_size)}
        for group in groups.values():
            ranks_by_all_gather(group)
        kept = groups.pop(settings.rank)
        groups.clear()
        del group
        gc.collect()
        world.destroy()
        del kept
        world.init(init_settings(f"file://{folder}/second"))
        gathered = ranks_by_all_gather(world.coordinator(everyone, name="everyone"))
        world.destroy()
        return gathered

    results = distributed_run(body, str(tmp_path), world_size=world_size, init_process_group=False)
    assert results == [list(range(world_size))] * world_size
