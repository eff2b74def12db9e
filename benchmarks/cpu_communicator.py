"""What the CPU communicator takes over shared memory and over gloo, side by side in the same ranks.

Each call is timed on every rank after a barrier, and the slowest rank counts; the two ways take turns, and
the figures are medians. `ratio` is shared memory over gloo: below 1, shared memory is faster; `load` is the
machine's load average. Sizes are of the tensor that each rank passes; a tensor dict is what a pipeline stage
sends, 8 tensors.

    python benchmarks/cpu_communicator.py [--world-sizes 2,4] [--sizes 1KiB,64KiB,…] [--operations …]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pytest_vdist import current_rank, init_settings
from pytest_vdist.backends.registry import find_backend
from pytest_vdist.implementations.spec import ImplementationSpec
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool

IMPLEMENTATION = ImplementationSpec.resolve("reference", "the benchmark")
WAYS = ("gloo", "shared memory")
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}
SIZES = "1KiB,16KiB,64KiB,256KiB,1MiB,4MiB,16MiB,64MiB,256MiB"
TENSORS = 8
BYTES_PER_CALL_AND_RANK = 1 << 30  # of results: larger ones do not fit several times
TIMEOUT = 900.0

Operation = Callable[[Any, torch.Tensor], object]


def all_reduce(group: Any, tensor: torch.Tensor) -> object:
    return group.all_reduce(tensor)


def all_gather(group: Any, tensor: torch.Tensor) -> object:
    return group.all_gather(tensor, 0)


def reduce_scatter(group: Any, tensor: torch.Tensor) -> object:
    return group.reduce_scatter(tensor, 0)


def gather(group: Any, tensor: torch.Tensor) -> object:
    return group.gather(tensor, 0, 0)


def broadcast(group: Any, tensor: torch.Tensor) -> object:
    return group.broadcast(tensor, 0)


def barrier(group: Any, tensor: torch.Tensor) -> object:
    return group.barrier()


def broadcast_object(group: Any, tensor: torch.Tensor) -> object:
    return group.broadcast_object(tensor.numpy() if group.rank_in_group == 0 else None)


def broadcast_tensor_dict(group: Any, tensor: torch.Tensor) -> object:
    return group.broadcast_tensor_dict(_stage(tensor) if group.rank_in_group == 0 else None)


def tensor_dict(group: Any, tensor: torch.Tensor) -> object:
    """Pass a dictionary down the pipeline, from each rank to the next."""
    received = group.recv_tensor_dict() if group.rank_in_group > 0 else None
    if group.rank_in_group < group.world_size - 1:
        group.send_tensor_dict(received or _stage(tensor))
    return received


def _stage(tensor: torch.Tensor) -> dict[str, Any]:
    return {"step": 7} | {str(number): part for number, part in enumerate(tensor.chunk(TENSORS))}


OPERATIONS: dict[str, Operation] = {
    function.__name__: function
    for function in (
        barrier,
        all_reduce,
        all_gather,
        reduce_scatter,
        gather,
        broadcast,
        broadcast_object,
        broadcast_tensor_dict,
        tensor_dict,
    )
}


@dataclass(frozen=True)
class Measurement:
    operation: str
    size: int
    rounds: int


def measure(plan: Sequence[Measurement]) -> list[dict[str, list[float]]]:
    """Take the seconds of each call of this rank, by way, for every measurement of the plan."""
    world = IMPLEMENTATION.load()
    world.init(init_settings("env://"))
    groups: dict[str, Any] = {}
    for way in WAYS:
        os.environ["VDIST_SHARED_MEMORY"] = str(int(way == "shared memory"))
        groups[way] = world.coordinator([list(range(current_rank().world_size))], name="everyone")
        communicator = groups[way].device_communicator
        if communicator.supports_tensor_dict != (way == "shared memory"):
            raise RuntimeError(f"not over {way}: {communicator.shared_memory_obstacle}")
    found = []
    for each in plan:
        tensor = torch.ones(max(each.size // 4, 1))
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(each.rounds + 1):
            for way, group in groups.items():
                groups["shared memory"].barrier()
                start = time.perf_counter()
                result = OPERATIONS[each.operation](group, tensor)
                seconds[way].append(time.perf_counter() - start)
                del result
        found.append({way: values[1:] for way, values in seconds.items()})
    world.destroy()
    return found


def plan_of(operations: Sequence[str], sizes: Sequence[int], world_size: int) -> list[Measurement]:
    plan = []
    for operation in operations:
        for size in sizes if operation != "barrier" else [0]:
            grows = world_size if operation in {"all_gather", "gather"} else 1
            if size * grows <= BYTES_PER_CALL_AND_RANK:
                plan.append(Measurement(operation, size, max(3, min(40, (1 << 26) // max(size, 1)))))
    return plan


def report(pool: RankPool, world_size: int, plan: Sequence[Measurement]) -> None:
    by_rank = pool.run(
        measure, (plan,), {}, world=WorldSpec("cpu"), world_size=world_size, timeout=TIMEOUT, fresh=True
    )
    for number, each in enumerate(plan):
        gloo, shared = (
            statistics.median(map(max, zip(*(rank[number][way] for rank in by_rank), strict=True)))
            for way in WAYS
        )
        print(
            f"{each.operation:<22}{_size_text(each.size):>9}{gloo * 1e3:>9.2f} ms{shared * 1e3:>9.2f} ms"
            f"{shared / gloo:>8.2f}{os.getloadavg()[0]:>7.1f}",
            flush=True,
        )


def _size(text: str) -> int:
    return next(
        int(text.removesuffix(unit)) * factor for unit, factor in UNITS.items() if text.endswith(unit)
    )


def _size_text(size: int) -> str:
    unit = "MiB" if size >= UNITS["MiB"] else "KiB"
    return f"{size // UNITS[unit]} {unit}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world-sizes", default="2,4")
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--operations", default=",".join(OPERATIONS))
    options = parser.parse_args()
    sizes = [_size(text) for text in options.sizes.split(",")]
    pool = RankPool(find_backend("cpu", origin="the benchmark"), 64)
    try:
        for world_size in map(int, options.world_sizes.split(",")):
            print(f"\n{world_size} ranks, {os.cpu_count()} cores")
            print(
                f"{'operation':<22}{'size':>9}{'gloo':>12}{'shared':>12}{'ratio':>8}{'load':>7}", flush=True
            )
            for operation in options.operations.split(","):
                report(pool, world_size, plan_of([operation], sizes, world_size))
    finally:
        pool.close()


if __name__ == "__main__":
    main()
