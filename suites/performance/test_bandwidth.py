"""Latency and bus bandwidth of collectives: of the coordinator, its operator and torch.distributed.

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
from pytest_vdist.judge.operators import OperatorCase, caller, writes_to_its_input

ITEM = 4  # bytes of an element of fp32
BLOCK = 262147  # elements that repeat in long messages; a prime, so that no part looks like the next one
ROWS = "vdist.bandwidth"
COORDINATOR, BARE, OPERATOR = "the coordinator", "torch.distributed", "the operator"

Call = Callable[[torch.Tensor], torch.Tensor]


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


def ways_to_call(group: Coordinator, operation: str, operator: str | None) -> dict[str, Call]:
    """Return the calls to compare. An operator that would sum its own results again is left out."""
    collective = COLLECTIVES[operation]
    ways: dict[str, Call] = {COORDINATOR: lambda x: collective.coordinated(group, x)}
    bare_group = getattr(group, "device_group", None)
    if isinstance(bare_group, dist.ProcessGroup):
        ways[BARE] = lambda x: collective.bare(bare_group, x)
    if operator is not None and (collective.in_place or not writes_to_its_input(operator)):
        bound = caller(OperatorCase(operation, operator, torch.float32, src=0), group)
        ways[OPERATOR] = returning_its_input(bound) if collective.in_place else bound
    return ways


def returning_its_input(operator: Call) -> Call:
    def call(x: torch.Tensor) -> torch.Tensor:
        operator(x)
        return x

    return call


def measure(
    group: Coordinator, operation: str, operator: str | None, message: Any
) -> tuple[int, dict[str, float]]:
    """Return the bytes of the message, and the seconds of one call, by the way to call.

    All take turns, a round of calls each, and go first in turns. The first call of each round and the last
    are judged, outside of the time that is taken.
    """
    collective, ranks = COLLECTIVES[operation], group.world_size
    whole = max(message.size // ITEM // ranks, 1) * ranks
    passed = inputs(operation, whole // ranks if collective.gathers else whole, group)
    want, mine = expected(operation, passed, group.rank_in_group), passed[group.rank_in_group]
    del passed
    ways = ways_to_call(group, operation, operator)
    seen: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(message.rounds):
        for way, call in reversed(ways.items()) if turn % 2 else ways.items():
            x = mine.clone() if collective.in_place else mine
            judge(call(x), want, operation, way)
            group.barrier()
            finish(group.device)
            with unwatched():
                start = time.perf_counter()
                for _ in range(message.calls):
                    result = call(x)
                finish(group.device)
                seen[way].append((time.perf_counter() - start) / message.calls)
            judge(result, want, operation, way)
    return whole * ITEM, {way: statistics.median(seconds) for way, seconds in seen.items()}


def judge(got: torch.Tensor, want: torch.Tensor, operation: str, way: str) -> None:
    """Raise AssertionError unless all bits are right."""
    if not same_bits(got, want):
        wrong = compare_exact(got.cpu(), want.cpu()) if got.shape == want.shape else f"shape {got.shape}"
        raise AssertionError(f"{operation} of {want.numel()} elements by {way}: {wrong}")


def finish(device: torch.device) -> None:
    """Wait for the device."""
    if device.type != "cpu":
        module: Any = torch.get_device_module(device)
        module.synchronize()


def microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e6, 3)


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
        operator = capabilities.operators.get(operation)
        by_rank = coordinator_run(measure, operation, operator, message, world_size=world_size)
        size = by_rank[0][0]
        slowest = {way: max(seconds[way] for _, seconds in by_rank) for way in by_rank[0][1]}
        algbw = size / slowest[COORDINATOR] / 1e9
        row = {
            "collective": operation,
            "bytes": size,
            "ranks": world_size,
            "latency_us": microseconds(slowest[COORDINATOR]),
            "bare_latency_us": microseconds(slowest.get(BARE)),
            "operator_latency_us": microseconds(slowest.get(OPERATOR)),
            "algbw": algbw,
            "busbw": algbw * COLLECTIVES[operation].bus_factor(world_size),
        }
        rows.append(row)
        if message_sizes.telling:
            print(*(f"{name} {value}" for name, value in row.items()), sep=", ")  # noqa: T201 - for -rP
    if message_sizes.telling:
        request.node.user_properties.append((ROWS, rows))
    assert [row["bytes"] for row in rows] == sorted({row["bytes"] for row in rows})
