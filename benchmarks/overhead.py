"""What the reference's all_reduce takes in Python over torch's, with a process group that does nothing.

A copy and `torch.distributed.all_reduce`, the reference's communicator and its coordinator take turns in one
process, on a tensor of 8 bytes; the fastest round of each counts. The "fake" backend of torch stands for one
that takes no time (torch.testing._internal, torch 2.11 to 2.15).

    python benchmarks/overhead.py [--calls N] [--rounds N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from pytest_vdist.reference_impl.arguments import Arguments
from pytest_vdist.reference_impl.checked_collectives import CheckedCollectives
from pytest_vdist.reference_impl.communicators.base import DeviceCommunicatorBase
from pytest_vdist.reference_impl.coordinator import GroupCoordinator
from pytest_vdist.reference_impl.ordered_group import OrderedGroup

CPU = torch.device("cpu")
RANKS = [0, 1]


def coordinator_over(group: dist.ProcessGroup, communicator: DeviceCommunicatorBase) -> GroupCoordinator:
    """Return what `all_reduce` needs of a coordinator: to make a whole one, both ranks must be there."""
    made = object.__new__(GroupCoordinator)
    made.unique_name, made.world_size, made.rank, made.use_custom_ops = "all:0", len(RANKS), 0, True
    made.timeout = made.cpu_timeout = None
    made._subgroups = SimpleNamespace(device_group=group, cpu_group=group)  # type: ignore[assignment]
    made._checked_collectives = CheckedCollectives(
        communicator,
        Arguments(made.unique_name, len(RANKS), 0, CPU),
        OrderedGroup(group, RANKS),
        made.scope("cpu_timeout"),
    )
    return made


def seconds(call: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=3000, help="calls in a row that are timed")
    parser.add_argument("--rounds", type=int, default=15, help="of which the fastest counts")
    arguments = parser.parse_args()
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=len(RANKS))
    group = dist.group.WORLD
    assert group is not None
    x = torch.ones(2)
    communicator = DeviceCommunicatorBase(group, CPU, group, "all:0", RANKS)
    coordinator = coordinator_over(group, communicator)

    def bare() -> torch.Tensor:
        result = x.clone()
        dist.all_reduce(result, group=group)
        return result

    ways: dict[str, Callable[[], object]] = {
        "torch.distributed": bare,
        "communicator": lambda: communicator.all_reduce(x),
        "coordinator": lambda: coordinator.all_reduce(x),
    }
    fastest = dict.fromkeys(ways, float("inf"))
    for _ in range(arguments.rounds):
        for name, call in ways.items():
            fastest[name] = min(fastest[name], seconds(call, arguments.calls))
    for name, found in fastest.items():
        print(f"{name:20}{found * 1e6:8.2f} us{found / fastest['torch.distributed']:8.2f} x")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
