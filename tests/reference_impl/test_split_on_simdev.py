"""Groups that are split off on the simulated accelerator: what the suites cannot see of the reference."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import current_rank
from pytest_vdist.reference_impl import _compat, environment

from .conftest import Run

HALVES = [[0, 2], [3, 1]]

pytestmark = pytest.mark.skipif(
    not _compat.split_group_takes_backend(), reason="this torch splits CUDA groups only"
)


@pytest.fixture
def run(run_on_simdev: Run) -> Run:
    """Return a function that calls another one on ranks, in a world that splits its groups."""
    return partial(run_on_simdev, split_group=True)


def timeouts(group: dist.ProcessGroup) -> dict[str, float]:
    """Return the timeout of every backend of a group in seconds, by device type."""
    legs: dict[str, Any] = {
        device_type: group._get_backend(torch.device(device_type))
        for device_type in _compat.configured_backends(group)
    }
    return {device_type: leg.options._timeout.total_seconds() for device_type, leg in legs.items()}


def test_timeouts_reach_every_backend_of_both_groups(run: Run) -> None:
    def body() -> list[dict[str, float]]:
        own = environment.create_group(HALVES, timeout=3, cpu_timeout=4)
        groups = [environment.get_world_group(), environment.create_group(HALVES), own]
        return [timeouts(group) for pair in groups for group in (pair.device_group, pair.cpu_group)]

    inherited = [{"simdev": 7}, {"cpu": 11, "simdev": 11}]
    own = [{"simdev": 3}, {"cpu": 4, "simdev": 4}]
    assert run(body, 4, timeout=7, cpu_timeout=11) == [[*inherited, *inherited, *own]] * 4


def test_without_timeouts_groups_keep_those_of_torch(run: Run) -> None:
    def body() -> list[dict[str, float]]:
        world = environment.get_world_group()
        return [timeouts(world.device_group), timeouts(world.cpu_group)]

    half_an_hour = 1800.0
    assert run(body, 2) == [[{"simdev": half_an_hour}, {"cpu": half_an_hour, "simdev": half_an_hour}]] * 2


def test_barriers_and_objects_leave_the_device_alone(run: Run) -> None:
    def collectives(group: dist.ProcessGroup, device_type: str) -> int:
        backend: Any = group._get_backend(torch.device(device_type))
        return int(backend._get_sequence_number_for_group())

    def body() -> dict[str, int]:
        world = environment.get_world_group()
        before = {device_type: collectives(world.cpu_group, device_type) for device_type in ("cpu", "simdev")}
        world.barrier()
        world.broadcast_object("object")
        dist.all_gather_object([None, None], "object", group=world.cpu_group)
        return {
            device_type: collectives(world.cpu_group, device_type) - number
            for device_type, number in before.items()
        }

    for moved in run(body, 2):
        assert moved["cpu"] > 0
        assert moved["simdev"] == 0


def test_sibling_groups_are_split_off_as_well(run: Run) -> None:
    def body() -> tuple[list[int], float, dict[str, float], int]:
        half = environment.create_group(HALVES, "half")
        siblings = [half.make_sibling_device_group() for _ in range(2)]
        tensor = torch.tensor([half.rank + 1.0], device=half.device)
        for sibling in siblings:
            dist.all_reduce(tensor, group=sibling)
        names = {siblings[0].group_name, siblings[1].group_name, half.device_group.group_name}
        return dist.get_process_group_ranks(siblings[0]), tensor.item(), timeouts(siblings[1]), len(names)

    by_rank = run(body, 4, timeout=7)
    for ranks in HALVES:
        twice_reduced = 2.0 * sum(rank + 1 for rank in ranks)
        for rank in ranks:
            assert by_rank[rank] == (sorted(ranks), twice_reduced, {"simdev": 7}, 3)


def test_the_device_is_split_off_alone_whatever_torch_takes_for_the_default(run: Run) -> None:
    def body() -> tuple[list[str], float]:
        group = dist.group.WORLD
        assert group is not None
        group._set_default_backend(dist.ProcessGroup.BackendType.GLOO)
        half = environment.create_group(HALVES, "half")
        reduced = half.all_reduce(torch.tensor([half.rank + 1.0], device=half.device)).item()
        return list(_compat.configured_backends(half.device_group)), reduced

    by_rank = run(body, 4)
    for ranks in HALVES:
        for rank in ranks:
            assert by_rank[rank] == (["simdev"], sum(rank + 1 for rank in ranks))


def test_members_are_in_torchs_group_in_ascending_order(run: Run) -> None:
    def body() -> tuple[list[int], list[int]]:
        group = environment.create_group([[3, 0, 2, 1]])
        return group.ranks, dist.get_process_group_ranks(group.device_group)

    assert run(body, 4) == [([3, 0, 2, 1], [0, 1, 2, 3])] * 4


def test_what_keeps_one_rank_from_splitting_is_told_to_all(run: Run) -> None:
    def body() -> str:
        group = dist.group.WORLD
        assert group is not None
        if current_rank().rank == 1:
            group.bound_device_id = torch.device("simdev", 5)
        try:
            environment.create_group([[0, 1]], "pair")
        except RuntimeError as error:
            return str(error)
        return ""

    told, raised = run(body, 2)
    plan = "cannot make the groups [[0, 1]] of 'pair:0' by split_group:"
    reason = (
        "the default process group cannot be split: it is bound to simdev:5 by its device_id, and this "
        "rank's device is simdev:1; make it by torch.distributed.init_process_group("
        "'cpu:gloo,simdev:simccl', device_id=torch.device('simdev:1')), or make subgroups by new_group"
    )
    assert raised.startswith(f"{plan} {reason}")
    assert told.startswith(f"{plan} on rank(s) [1] {reason}")


def test_another_backend_than_the_default_groups_is_refused(run: Run) -> None:
    def body() -> tuple[str, float]:
        right = environment.create_group([[0, 1]], torch_distributed_backend="simccl")
        reduced = right.all_reduce(torch.ones(1, device=right.device)).item()
        try:
            environment.create_group([[0, 1]], torch_distributed_backend="gloo")
        except RuntimeError as error:
            return str(error), reduced
        return "", reduced

    for refusal, reduced in run(body, 2):
        assert "its backend for 'simdev' is 'simccl', and 'gloo' was asked for" in refusal
        assert reduced == 2
