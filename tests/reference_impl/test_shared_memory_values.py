"""Groups that share memory: every operation gives the values of its definition."""

from __future__ import annotations

import functools
import random

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import DistributedRun
from pytest_vdist.reference_impl.communicators.shm import segment
from pytest_vdist.reference_impl.coordinator import GroupCoordinator
from tests.reference_impl.shared_groups import ENVIRONMENT, group_of, made


def check_sum(group: GroupCoordinator, seed: int, numel: int, dtype: torch.dtype) -> None:
    """Compare to the bit with the sum in the order of the ranks, which is then the same on every rank."""
    inputs = [made(rank, seed, numel, dtype) for rank in range(group.world_size)]
    expected = functools.reduce(torch.add, inputs)
    assert torch.equal(group.all_reduce(inputs[group.rank_in_group]), expected)
    even = numel // group.world_size * group.world_size
    chunk = group.reduce_scatter(inputs[group.rank_in_group][:even])
    assert torch.equal(chunk, expected[:even].view(group.world_size, -1)[group.rank_in_group])


def check_movement(group: GroupCoordinator, seed: int, numel: int, dtype: torch.dtype) -> None:
    everything = torch.cat([made(rank, seed, numel, dtype) for rank in range(group.world_size)])
    own = everything.view(group.world_size, -1)[group.rank_in_group].clone()
    root = seed % group.world_size
    assert torch.equal(group.all_gather(own), everything)
    gathered = group.gather(own, root)
    assert (gathered is None) == (group.rank_in_group != root)
    assert gathered is None or torch.equal(gathered, everything)
    assert torch.equal(group.broadcast(own, root), everything.view(group.world_size, -1)[root])


def check_tensor_dict(group: GroupCoordinator, seed: int, numel: int, dtype: torch.dtype) -> None:
    """Several dictionaries are on their way around the ring at once."""

    def of(rank: int, number: int) -> torch.Tensor:
        return made(rank, seed + number, numel, dtype)

    count = seed % 70 + 1 if numel < 1000 else 3
    for number in range(count):
        group.isend_tensor_dict({"t": of(group.rank_in_group, number), "n": {"number": number}})
    src = (group.rank_in_group - 1) % group.world_size
    for number in range(count):
        received = group.recv_tensor_dict()
        assert received is not None
        assert received["n"] == {"number": number}
        assert torch.equal(received["t"], of(src, number))


def check_objects(group: GroupCoordinator, seed: int, numel: int, dtype: torch.dtype) -> None:
    root = seed % group.world_size
    sent = {"seed": seed, "text": "x" * numel, "dtype": dtype}
    assert group.broadcast_object(sent if group.rank_in_group == root else None, root) == sent
    group.barrier()


def check_torch(group: GroupCoordinator, seed: int, numel: int, dtype: torch.dtype) -> None:
    """torch.distributed goes on working in the groups, in between."""
    reduced = torch.full((numel % 7 + 1,), seed, dtype=torch.int64)
    dist.all_reduce(reduced, group=group.device_group)
    assert bool((reduced == seed * group.world_size).all())


CHECKS = (check_sum, check_movement, check_tensor_dict, check_objects, check_torch)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int8)


@pytest.mark.parametrize("world_size", [2, 3, 5, 8, 16])
def test_any_sequence_of_operations_gives_the_values_of_its_definition(
    distributed_run: DistributedRun, world_size: int
) -> None:
    """Tensors of 24 slots are among them, and some that just fit or just do not."""
    slot = 1 << 16
    sizes = [0, 1, 7, 8192, 8193, slot // 8, slot, 3 * slot + 5]

    def body() -> None:
        segment.LARGEST_SLOT = slot
        choose = random.Random(world_size)
        everyone = group_of()
        backwards = group_of(list(reversed(range(world_size))))
        for _ in range(40 if world_size < 9 else 15):
            group = choose.choice([everyone, backwards])
            choose.choice(CHECKS)(group, choose.randrange(1000), choose.choice(sizes), choose.choice(DTYPES))
        everyone.barrier()
        everyone.destroy()
        backwards.destroy()

    distributed_run(body, world_size=world_size, env=ENVIRONMENT, timeout=120, fresh=True)
