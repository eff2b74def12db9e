"""Latency and bus bandwidth of collectives: the coordinator's call beside the one of torch.distributed.

Bus bandwidth is what nccl-tests call so: bytes of the whole message over seconds, times 2(n-1)/n for
all_reduce, (n-1)/n for all_gather and reduce_scatter and 1 for broadcast
(https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md). The slowest rank counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pytest_vdist import Capabilities, Coordinator, CoordinatorRun, unwatched
from pytest_vdist.judge import compare_exact, same_bits
from pytest_vdist.judge.cases import Case

ITEM = 4  # bytes of an element of fp32
BLOCK = 262147  # elements that repeat in long messages; a prime, so that no part looks like the next one
ROWS = "vdist.bandwidth"


@dataclass(frozen=True)
class Collective:
    """One collective both ways, on a 1-D tensor.

    `transfers` is how often (n-1)/n of the message pass a rank's link, 0 for all of it once. The message is
    the result where it `gathers`.
    """

    coordinated: Callable[[Any, torch.Tensor], torch.Tensor]
    bare: Callable[[dist.ProcessGroup, torch.Tensor], torch.Tensor]
    transfers: int
    gathers: bool = False
    in_place: bool = False

    def bus_factor(self, ranks: int) -> float:
        return self.transfers * (ranks - 1) / ranks if self.transfers else 1.0


def bare_all_reduce(group: dist.ProcessGroup, x: torch.Tensor) -> torch.Tensor:
    """Sum a copy, as the coordinator keeps its input too."""
    result = x.clone()
    dist.all_reduce(result, group=group)
    return result


def bare_all_gather(group: dist.ProcessGroup, x: torch.Tensor) -> torch.Tensor:
    # torch 2.13 renamed it: https://docs.pytorch.org/docs/main/distributed.html
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    result = x.new_empty(x.numel() * group.size())
    gather(result, x, group=group)
    return result


def bare_reduce_scatter(group: dist.ProcessGroup, x: torch.Tensor) -> torch.Tensor:
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    result = x.new_empty(x.numel() // group.size())
    scatter(result, x, group=group)
    return result


def bare_broadcast(group: dist.ProcessGroup, x: torch.Tensor) -> torch.Tensor:
    dist.broadcast(x, group=group, group_src=0)
    return x


COLLECTIVES = {
    "all_reduce": Collective(lambda group, x: group.all_reduce(x), bare_all_reduce, transfers=2),
    "all_gather": Collective(
        lambda group, x: group.all_gather(x, 0), bare_all_gather, transfers=1, gathers=True
    ),
    "reduce_scatter": Collective(
        lambda group, x: group.reduce_scatter(x, 0), bare_reduce_scatter, transfers=1
    ),
    "broadcast": Collective(
        lambda group, x: group.broadcast(x, 0), bare_broadcast, transfers=0, in_place=True
    ),
}


def inputs(operation: str, elements: int, group: Coordinator) -> list[torch.Tensor]:
    """Return what each rank passes: sums are exact, other values any bits; long messages repeat a block."""
    values = "movement" if operation in {"all_gather", "broadcast"} else "exact"
    case = Case(operation, (min(elements, BLOCK),), torch.float32, values=values)
    return [
        case.input(rank, group.world_size).to(group.device).repeat(-(-elements // BLOCK))[:elements]
        for rank in range(group.world_size)
    ]


def expected(operation: str, passed: list[torch.Tensor], rank: int) -> torch.Tensor:
    """Return what a rank must get."""
    if operation == "broadcast":
        return passed[0]
    if operation == "all_gather":
        return torch.cat(passed)
    total = passed[0].clone()
    for each in passed[1:]:
        total += each
    return total if operation == "all_reduce" else total.chunk(len(passed))[rank]


def measure(
    group: Coordinator, operation: str, size: int, calls: int, rounds: int
) -> tuple[int, float, float | None]:
    """Return the bytes of the message, and the seconds of one call: the coordinator's, and the bare one.

    Both take turns, a round of calls each, and go first in turns. The first call of each round and the last
    are judged, outside of the time that is taken.
    """
    collective, ranks = COLLECTIVES[operation], group.world_size
    whole = max(size // ITEM // ranks, 1) * ranks
    passed = inputs(operation, whole // ranks if collective.gathers else whole, group)
    want, mine = expected(operation, passed, group.rank_in_group), passed[group.rank_in_group]
    del passed
    bare_group = getattr(group, "device_group", None)
    ways: list[Callable[[torch.Tensor], torch.Tensor]] = [lambda x: collective.coordinated(group, x)]
    if isinstance(bare_group, dist.ProcessGroup):
        ways.append(lambda x: collective.bare(bare_group, x))
    seen: list[list[float]] = [[] for _ in ways]
    turns = list(enumerate(zip(ways, seen, strict=True)))
    for turn in range(rounds):
        for way, (call, seconds) in turns if turn % 2 else reversed(turns):
            x = mine.clone() if collective.in_place else mine
            judge(call(x), want, operation, way)
            group.barrier()
            finish(group.device)
            with unwatched():
                start = time.perf_counter()
                for _ in range(calls):
                    result = call(x)
                finish(group.device)
                seconds.append((time.perf_counter() - start) / calls)
            judge(result, want, operation, way)
    medians = [statistics.median(seconds) for seconds in seen]
    return whole * ITEM, medians[0], medians[1] if len(medians) > 1 else None


def judge(got: torch.Tensor, want: torch.Tensor, operation: str, way: int) -> None:
    """Raise AssertionError unless all bits are right."""
    if not same_bits(got, want):
        caller = "torch.distributed" if way else "the coordinator"
        wrong = compare_exact(got.cpu(), want.cpu()) if got.shape == want.shape else f"shape {got.shape}"
        raise AssertionError(f"{operation} of {want.numel()} elements by {caller}: {wrong}")


def finish(device: torch.device) -> None:
    """Wait for the device."""
    if device.type != "cpu":
        module: Any = torch.get_device_module(device)
        module.synchronize()


@pytest.mark.parametrize("operation", COLLECTIVES)
@pytest.mark.vdist_world_size(min=2)
@pytest.mark.vdist_requirement("VD-PRF-001")
def test_latency_and_bandwidth(  # noqa: PLR0917 - fixtures
    coordinator_run: CoordinatorRun,
    world_size: int,
    operation: str,
    message_sizes: Any,
    capabilities: Capabilities,
    request: pytest.FixtureRequest,
) -> None:
    """Collectives called many times in a row are right in every size; how fast they are is only told."""
    if not capabilities.supports(operation):
        pytest.skip(f"unsupported: {operation}: {capabilities.unsupported[operation]}")
    rows = []
    for message in message_sizes.sizes:
        by_rank = coordinator_run(
            measure, operation, message.size, message.calls, message.rounds, world_size=world_size
        )
        size, seconds = by_rank[0][0], max(each[1] for each in by_rank)
        bare = [each[2] for each in by_rank if each[2] is not None]
        algbw = size / seconds / 1e9
        row = {
            "collective": operation,
            "bytes": size,
            "ranks": world_size,
            "latency_us": round(seconds * 1e6, 3),
            "bare_latency_us": round(max(bare) * 1e6, 3) if bare else None,
            "algbw": algbw,
            "busbw": algbw * COLLECTIVES[operation].bus_factor(world_size),
        }
        rows.append(row)
        if message_sizes.telling:
            print(*(f"{name} {value}" for name, value in row.items()), sep=", ")  # noqa: T201 - for -rP
    if message_sizes.telling:
        request.node.user_properties.append((ROWS, rows))
    assert [row["bytes"] for row in rows] == sorted({row["bytes"] for row in rows})
