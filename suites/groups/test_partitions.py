"""Lists of ranks that no groups can be made of: refused on every rank, before any rank waits for another."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from pytest_vdist import DistributedRun, Implementation, ImplementationSpec, current_rank, init_settings

Groups = list[list[int]]
SECONDS_TO_REFUSE = 10.0
SECONDS_TO_WAIT = 40.0


def wrong(world_size: int) -> dict[str, tuple[Groups, int]]:
    """Return lists that are wrong by themselves, and the rank at fault, which the error must name."""
    ranks, last = list(range(world_size)), world_size - 1
    return {
        "a rank beyond the world": ([ranks, [world_size]], world_size),
        "a rank beyond the world beside others": ([[*ranks, world_size + 40]], world_size + 40),
        "a negative rank": ([[*ranks[1:], -1]], -1),
        "a rank twice in one group": ([[*ranks, last]], last),
        "a rank twice in a later group": ([ranks[:-1], [last, last]], last),
        "a rank in two groups": ([ranks, [last]], last),
        "groups that overlap": ([ranks[: last + 1], ranks[last:]], last),
    }


def differing(world_size: int) -> dict[str, Callable[[int], Groups]]:
    """Return lists that are right by themselves and not the same on all ranks, by rank."""
    ranks = list(range(world_size))
    alone = [[rank] for rank in ranks]
    return {
        "the last rank differs": lambda rank: alone if rank == ranks[-1] else [ranks],
        "the first rank differs": lambda rank: [ranks] if rank == 0 else alone,
        "another order of members": lambda rank: [ranks if rank % 2 else ranks[::-1]],
        "only the own group": lambda rank: [[rank]],
        "every rank leaves itself out": lambda rank: [[other for other in ranks if other != rank]],
    }


def refusal(make: Callable[[], object]) -> tuple[str, float]:
    """Return the error's text, "" where none came, and the seconds until then."""
    start = time.monotonic()
    try:
        make()
    except Exception as error:
        return str(error) or type(error).__name__, time.monotonic() - start
    return "", time.monotonic() - start


def gathered_after(world: Implementation, world_size: int) -> list[float]:
    group = world.coordinator([list(range(world_size))], name="right")
    return group.all_gather(torch.tensor([float(group.rank)], device=group.device)).tolist()


@pytest.mark.vdist_requirement("VD-SPL-004")
def test_wrong_lists_are_refused_on_every_rank(
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
) -> None:
    """Ranks beyond the world, negative, repeated or in two groups: an error that names them, and no wait."""

    def body(init_method: str) -> tuple[dict[str, tuple[str, float]], list[float]]:
        world = implementation.load()
        settings = replace(init_settings(init_method), split_group=split_group)
        world.init(replace(settings, timeout=SECONDS_TO_WAIT, cpu_timeout=SECONDS_TO_WAIT))
        refusals = {
            what: refusal(partial(world.coordinator, groups, name="wrong"))
            for what, (groups, _) in wrong(world_size).items()
        }
        gathered = gathered_after(world, world_size)
        world.destroy()
        return refusals, gathered

    by_rank = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    for rank, (refusals, gathered) in enumerate(by_rank):
        for what, (error, seconds) in refusals.items():
            groups, culprit = wrong(world_size)[what]
            numbers = {int(number) for number in re.findall(r"-?\d+", error)}
            assert error, f"rank {rank}: {what}, {groups}, was taken"
            assert culprit in numbers, f"rank {rank}: the error for {groups} must name {culprit}, got {error}"
            assert seconds < SECONDS_TO_REFUSE, f"rank {rank} waited {seconds:.1f} s with {groups}"
        assert gathered == list(range(world_size)), f"rank {rank}: groups after the refusals"


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-SPL-003")
def test_lists_that_differ_between_ranks_are_refused_on_every_rank(
    distributed_run: DistributedRun,
    implementation: ImplementationSpec,
    tmp_path: Path,
    world_size: int,
    split_group: bool,
) -> None:
    """Where the ranks do not pass the same lists, every rank gets an error, and none waits for a timeout."""

    def body(init_method: str) -> tuple[dict[str, tuple[str, float]], list[float]]:
        world = implementation.load()
        settings = replace(init_settings(init_method), split_group=split_group)
        world.init(replace(settings, timeout=SECONDS_TO_WAIT, cpu_timeout=SECONDS_TO_WAIT))
        refusals = {
            what: refusal(partial(world.coordinator, groups(current_rank().rank), name="differing"))
            for what, groups in differing(world_size).items()
        }
        gathered = gathered_after(world, world_size)
        world.destroy()
        return refusals, gathered

    by_rank = distributed_run(
        body, f"file://{tmp_path}/world", world_size=world_size, init_process_group=False
    )
    for rank, (refusals, gathered) in enumerate(by_rank):
        for what, (error, seconds) in refusals.items():
            assert error, f"rank {rank}: {what}, and nothing was refused"
            assert seconds < SECONDS_TO_REFUSE, f"rank {rank} waited {seconds:.1f} s: {what}"
        assert gathered == list(range(world_size)), f"rank {rank}: groups after the refusals"
