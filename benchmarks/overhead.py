"""What the reference's collectives take in Python over torch's, with a process group that does nothing.

Torch's call into a new tensor (into the given one, for broadcast), the reference's communicator, its
coordinator and its operator take turns in one process, on a tensor of 8 bytes; the fastest round of each
counts. The "fake" backend of torch stands for one that takes no time (torch.testing._internal, torch 2.11 to
2.15).

    python benchmarks/overhead.py [--calls N] [--rounds N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from pytest_vdist.reference_impl import names
from pytest_vdist.reference_impl.arguments import Arguments
from pytest_vdist.reference_impl.checked_collectives import CheckedCollectives
from pytest_vdist.reference_impl.communicators.base import DeviceCommunicatorBase
from pytest_vdist.reference_impl.coordinator import GroupCoordinator
from pytest_vdist.reference_impl.ordered_group import OrderedGroup

CPU = torch.device("cpu")
RANKS = [0, 1]


def coordinator_over(group: dist.ProcessGroup, communicator: DeviceCommunicatorBase) -> GroupCoordinator:
    """Return what collectives need of a coordinator: to make a whole one, both ranks must be there."""
    made = object.__new__(GroupCoordinator)
    made.unique_name, made.world_size, made.rank, made.use_custom_ops = "all:0", len(RANKS), 0, True
    made.timeout = made.cpu_timeout = None
    made._communicator = communicator
    made._arguments = Arguments(made.unique_name, len(RANKS), 0, CPU)
    made._subgroups = SimpleNamespace(device_group=group, cpu_group=group)  # type: ignore[assignment]
    made._checked_collectives = CheckedCollectives(
        communicator, made._arguments, OrderedGroup(group, RANKS), made.scope("cpu_timeout")
    )
    return made


def bare_calls(group: dist.ProcessGroup) -> dict[str, Callable[[torch.Tensor], object]]:
    """Return what one writes with torch.distributed alone."""
    # torch 2.13 renamed both: https://docs.pytorch.org/docs/main/distributed.html
    gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor

    def all_reduce(x: torch.Tensor) -> None:
        dist.all_reduce(x.clone(), group=group)

    def all_gather(x: torch.Tensor) -> None:
        gather(x.new_empty(x.numel() * len(RANKS)), x, group=group)

    def reduce_scatter(x: torch.Tensor) -> None:
        scatter(x.new_empty(x.numel() // len(RANKS)), x, group=group)

    def broadcast(x: torch.Tensor) -> None:
        dist.broadcast(x, src=0, group=group)

    calls = (all_reduce, all_gather, reduce_scatter, broadcast)
    return {call.__name__: call for call in calls}


def calls_of(owner: Any) -> dict[str, Callable[[torch.Tensor], object]]:
    """Return the same collectives of a coordinator or of a communicator."""
    return {
        "all_reduce": owner.all_reduce,
        "all_gather": lambda x: owner.all_gather(x, 0),
        "reduce_scatter": lambda x: owner.reduce_scatter(x, 0),
        "broadcast": lambda x: owner.broadcast(x, 0),
    }


def operators_of(group_name: str) -> dict[str, Callable[[torch.Tensor], object]]:
    """Return the operators of the collectives, which find the coordinator by name."""
    known: Any = torch.ops.vdist
    return {
        "all_reduce": lambda x: known.all_reduce(x, group_name),
        "all_gather": lambda x: known.all_gather(x, 0, len(RANKS), group_name),
        "reduce_scatter": lambda x: known.reduce_scatter(x, 0, len(RANKS), group_name),
        "broadcast": lambda x: known.broadcast_(x, 0, group_name),
    }


def seconds(call: Callable[[torch.Tensor], object], x: torch.Tensor, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call(x)
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
    names.register(coordinator)
    ways = {
        "torch.distributed": bare_calls(group),
        "communicator": calls_of(communicator),
        "coordinator": calls_of(coordinator),
        "operator": operators_of(coordinator.unique_name),
    }
    for operation in ways["torch.distributed"]:
        fastest = dict.fromkeys(ways, float("inf"))
        for _ in range(arguments.rounds):
            for name, calls in ways.items():
                fastest[name] = min(fastest[name], seconds(calls[operation], x, arguments.calls))
        for name, found in fastest.items():
            ratio = found / fastest["torch.distributed"]
            print(f"{operation:16}{name:20}{found * 1e6:8.2f} us{ratio:8.2f} x")
    names.unregister(coordinator.unique_name)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
