"""Latency and bus bandwidth of collectives: the coordinator's call beside the bare torch.distributed call.

Bus bandwidth is what nccl-tests call so: bytes of the whole message over seconds, times 2(n-1)/n for
all_reduce, (n-1)/n for all_gather and reduce_scatter and 1 for broadcast
(https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md). The slowest rank counts. Every result
is compared with the expected one before the clock starts and after it has stopped.

    python benchmarks/bandwidth.py [--backend NAME] [--world-size N] [--sizes BYTES,BYTES] [--repeats N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from pytest_vdist import Coordinator, ImplementationSpec
from pytest_vdist.backends.registry import find_backend, require_devices
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool
from pytest_vdist.ranks.world import call_with_coordinator

TIMEOUT = 300.0
ITEM = 4  # bytes of an element
# torch 2.13 renamed them: https://docs.pytorch.org/docs/main/distributed.html
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
_reduce_scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)
IMPLEMENTATION = ImplementationSpec.resolve("reference", "the benchmark")


@dataclass(frozen=True)
class Collective:
    """One collective both ways, on a 1-D tensor of ones, and the value of each element of its result.

    `transfers` is how often (n-1)/n of the message pass a rank's link, 0 for all of it once. The message is
    the result where it `gathers`.
    """

    name: str
    coordinated: Callable[[Coordinator, torch.Tensor], torch.Tensor]
    bare: Callable[[dist.ProcessGroup, torch.Tensor], torch.Tensor]
    transfers: int
    sums: bool = False
    gathers: bool = False

    def expected(self, world_size: int) -> float:
        return float(world_size) if self.sums else 1.0

    def bus_bytes(self, size: int, world_size: int) -> float:
        """Return how many bytes of a message of `size` pass each rank's link, as nccl-tests counts them."""
        return size * self.transfers * (world_size - 1) / world_size if self.transfers else float(size)


def _bare_all_reduce(group: dist.ProcessGroup, x: torch.Tensor) -> torch.Tensor:
    result = x.clone()  # in place, as torch has it: the coordinator keeps its input
    dist.all_reduce(result, group=group)
    return result


def _bare_all_gather(group: dist.ProcessGroup, x: torch.Tensor) -> torch.Tensor:
    result = x.new_empty(x.numel() * group.size())
    _all_gather(result, x, group=group)
    return result


def _bare_reduce_scatter(group: dist.ProcessGroup, x: torch.Tensor) -> torch.Tensor:
    result = x.new_empty(x.numel() // group.size())
    _reduce_scatter(result, x, group=group)
    return result


def _bare_broadcast(group: dist.ProcessGroup, x: torch.Tensor) -> torch.Tensor:
    dist.broadcast(x, group=group, group_src=0)
    return x


COLLECTIVES = (
    Collective(
        "all_reduce",
        lambda group, x: group.all_reduce(x),
        _bare_all_reduce,
        transfers=2,
        sums=True,
    ),
    Collective(
        "all_gather",
        lambda group, x: group.all_gather(x, 0),
        _bare_all_gather,
        transfers=1,
        gathers=True,
    ),
    Collective(
        "reduce_scatter",
        lambda group, x: group.reduce_scatter(x, 0),
        _bare_reduce_scatter,
        transfers=1,
        sums=True,
    ),
    Collective(
        "broadcast",
        lambda group, x: group.broadcast(x, 0),
        _bare_broadcast,
        transfers=0,
    ),
)


def seconds(group: Coordinator, index: int, size: int, repeats: int) -> tuple[float, float]:
    """Return the seconds of one call in this rank, by torch.distributed and by the coordinator."""
    collective = COLLECTIVES[index]
    elements = max(size // ITEM // group.world_size * group.world_size, group.world_size)
    x = torch.ones(
        elements // group.world_size if collective.gathers else elements,
        dtype=torch.float32,
        device=group.device,
    )
    bare_group: dist.ProcessGroup = group.device_group  # type: ignore[attr-defined]
    calls: tuple[Callable[[], torch.Tensor], ...] = (
        lambda: collective.bare(bare_group, x),
        lambda: collective.coordinated(group, x),
    )
    rounds: tuple[list[float], list[float]] = ([], [])
    for _ in range(5):
        for call, seen in zip(calls, rounds, strict=True):
            _check(call(), collective.expected(group.world_size))
            group.barrier()
            _finish(group.device)
            start = time.perf_counter()
            for _ in range(repeats):
                result = call()
            _finish(group.device)
            seen.append((time.perf_counter() - start) / repeats)
            _check(result, collective.expected(group.world_size))
    return statistics.median(rounds[0]), statistics.median(rounds[1])


def _check(result: torch.Tensor, expected: float) -> None:
    if not bool((result == expected).all()):
        raise ValueError(f"expected {expected} everywhere, got values from {result.min()} to {result.max()}")


def _finish(device: torch.device) -> None:
    if device.type != "cpu":
        module: Any = torch.get_device_module(device)
        module.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", default="cpu", help="a device backend, as for --vdist-backend")
    parser.add_argument("--world-size", type=int, default=2)
    parser.add_argument("--sizes", default="8,1024,65536,1048576,16777216", help="of messages, in bytes")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    backend, size = find_backend(arguments.backend, origin="--backend"), arguments.world_size
    pool = RankPool(backend, require_devices(backend, origin="the benchmark").device_count)
    world = WorldSpec(backend.device_type, implementation=IMPLEMENTATION)
    print(f"{size} ranks on {backend.name} ({backend.library_version()}), torch {torch.__version__}, fp32")
    print(
        f"{'collective':15}{'bytes':>12}{'bare':>12}{'coordinator':>14}{'over':>10}"
        f"{'bare busbw':>14}{'busbw':>10} GB/s"
    )
    try:
        for index, collective in enumerate(COLLECTIVES):
            for each in map(int, arguments.sizes.split(",")):
                by_rank = pool.run(
                    call_with_coordinator,
                    (seconds, None, index, each, arguments.repeats),
                    {},
                    world=world,
                    world_size=size,
                    timeout=TIMEOUT,
                )
                bare, coordinated = (max(column) for column in zip(*by_rank, strict=True))
                moved = collective.bus_bytes(each, size) / 1e9
                print(
                    f"{collective.name:15}{each:12}{bare * 1e6:9.1f} us{coordinated * 1e6:11.1f} us"
                    f"{(coordinated - bare) * 1e6:7.1f} us{moved / bare:14.2f}{moved / coordinated:10.2f}"
                )
    finally:
        pool.close()


if __name__ == "__main__":
    main()
