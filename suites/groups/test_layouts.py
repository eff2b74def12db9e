"""Who is in which group, in which order: the world, halves, strides, lists that are not ascending."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pytest_vdist import Capabilities, Coordinator, CoordinatorRun
from pytest_vdist.judge.cases import Case, assert_cases
from pytest_vdist.judge.every_call import collectives, message_kinds, messages_expected, pass_messages

Groups = list[list[int]]


def halves(world_size: int) -> Groups:
    ranks = list(range(world_size))
    return [ranks[: world_size // 2], ranks[world_size // 2 :]]


def strided(world_size: int) -> Groups:
    ranks = list(range(world_size))
    return [ranks[::2], ranks[1::2]]


def reversed_strided(world_size: int) -> Groups:
    return [ranks[::-1] for ranks in strided(world_size)]


def rotated(world_size: int) -> Groups:
    """One group whose order, from three ranks on, is not its own inverse."""
    return [[*range(1, world_size), 0]]


def uneven(world_size: int) -> Groups:
    return [[0], list(range(world_size - 1, 0, -1))]


def assert_works(run: CoordinatorRun, groups: Groups, world_size: int, capabilities: Capabilities) -> None:
    """Assert that every call gives what the lists of ranks say, in all groups at the same time."""
    if len({len(ranks) for ranks in groups}) == 1:
        cases = collectives(len(groups[0]), capabilities)
    else:
        cases = [Case("all_reduce", (7,), torch.float32), Case("all_gather", (3, 5), torch.float32)]
    assert_cases(run, cases, world_size=world_size, group_ranks=groups)
    kinds = message_kinds(capabilities)

    def body(group: Coordinator) -> tuple[list[int], int, int, dict[str, list[Any]]]:
        ranks = next(ranks for ranks in groups if group.rank in ranks)
        return group.ranks, group.rank_in_group, group.world_size, pass_messages(group, ranks, kinds)

    results = run(body, world_size=world_size, group_ranks=groups)
    for ranks in groups:
        for place, rank in enumerate(ranks):
            expected = messages_expected(ranks, rank, kinds)
            assert results[rank] == (ranks, place, len(ranks), expected), f"rank {rank}"


@pytest.mark.vdist_requirement("VD-GRP-001")
def test_the_world_lists_all_ranks_in_order(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """The group of all ranks lists them in ascending order, and rank in the group and global rank agree."""
    assert_works(coordinator_run, [list(range(world_size))], world_size, capabilities)


@pytest.mark.vdist_world_size(min=4, multiple_of=2)
@pytest.mark.vdist_requirement("VD-GRP-002")
def test_the_second_half_works_by_ranks_within_the_group(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """Both halves of the world use every call at once; ranks count from 0 within each half."""
    assert_works(coordinator_run, halves(world_size), world_size, capabilities)


@pytest.mark.vdist_world_size(min=4, multiple_of=2)
@pytest.mark.vdist_requirement("VD-GRP-003")
def test_ranks_that_are_not_neighbours_form_a_group(
    coordinator_run: CoordinatorRun, world_size: int, capabilities: Capabilities
) -> None:
    """Even and odd ranks use every call at once, each among themselves."""
    assert_works(coordinator_run, strided(world_size), world_size, capabilities)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-GRP-004")
@pytest.mark.parametrize("layout", [rotated, uneven, reversed_strided])
def test_the_order_of_the_list_is_the_order_of_the_group(
    coordinator_run: CoordinatorRun,
    world_size: int,
    capabilities: Capabilities,
    layout: Callable[[int], Groups],
) -> None:
    """Ranks in the group, sources, destinations and gathered parts follow lists that are not ascending."""
    assert_works(coordinator_run, layout(world_size), world_size, capabilities)


@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-GRP-007")
@pytest.mark.parametrize("layout", [halves, strided, rotated, reversed_strided])
def test_neighbours_are_global_ranks_of_the_list(
    coordinator_run: CoordinatorRun, world_size: int, layout: Callable[[int], Groups]
) -> None:
    """First, last, next and previous are global ranks of the group's list; next and previous wrap around."""

    def body(group: Coordinator) -> tuple[int, int, int, int]:
        return group.first_rank, group.last_rank, group.next_rank, group.prev_rank

    groups = layout(world_size)
    neighbours = coordinator_run(body, world_size=world_size, group_ranks=groups)
    for ranks in groups:
        for place, rank in enumerate(ranks):
            expected = ranks[0], ranks[-1], ranks[(place + 1) % len(ranks)], ranks[place - 1]
            assert neighbours[rank] == expected, f"rank {rank} of {groups}: (first, last, next, previous)"
