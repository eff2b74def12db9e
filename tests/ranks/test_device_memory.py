"""What a function leaves of the device's memory is given back before the next one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import torch

from pytest_vdist import current_rank
from pytest_vdist.backends.registry import require_devices
from pytest_vdist.backends.simdev import BACKEND
from pytest_vdist.ranks.device_memory import DeviceMemory
from pytest_vdist.ranks.messages import WorldSpec
from pytest_vdist.ranks.pool import RankPool

MIB = 1 << 20


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    require_devices(BACKEND, origin="these tests")
    with closing(RankPool(BACKEND, 1)) as made:
        yield made


def run(pool: RankPool, function: Any) -> Any:
    world = WorldSpec(BACKEND.device_type)
    return pool.run(function, (), {}, world=world, world_size=1, timeout=30.0)[0]


def allocated() -> int:
    return torch.accelerator.memory_allocated(current_rank().device)


def test_tensors_that_a_function_has_left_in_a_cycle_are_freed(pool: RankPool) -> None:
    def leave_a_cycle() -> int:
        cycle: list[Any] = [torch.empty(8 * MIB, dtype=torch.uint8, device=current_rank().device)]
        cycle.append(cycle)
        return allocated()

    before = run(pool, allocated)
    assert run(pool, leave_a_cycle) == before + 8 * MIB
    assert run(pool, allocated) == before


def test_what_somebody_still_refers_to_stays(pool: RankPool) -> None:
    def keep() -> None:
        torch.kept_by_this_test = torch.empty(  # type: ignore[attr-defined]
            8 * MIB, dtype=torch.uint8, device=current_rank().device
        )

    before = run(pool, allocated)
    run(pool, keep)
    assert run(pool, allocated) == before + 8 * MIB


class Allocator:
    """Stands for one that caches, which the simulated device has not."""

    def __init__(self) -> None:
        self.allocated = self.reserved = 0
        self.emptied = 0

    def memory_stats(self, _: torch.device) -> dict[str, int]:
        return {
            "allocated_bytes.all.current": self.allocated,
            "reserved_bytes.all.current": self.reserved,
        }

    def empty_cache(self) -> None:
        self.emptied += 1
        self.reserved = self.allocated


@pytest.mark.parametrize(("cached", "emptied"), [(64 * MIB, 0), (64 * MIB + 1, 1)])
def test_what_the_allocator_caches_beyond_a_little_is_given_back(
    cached: int, emptied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocator = Allocator()
    monkeypatch.setattr(torch, "accelerator", allocator)
    memory = DeviceMemory(torch.device("cuda", 0))
    allocator.allocated, allocator.reserved = 100, 100 + cached
    memory.give_back()
    assert allocator.emptied == emptied


def test_a_device_whose_memory_torch_does_not_count_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unknown(Allocator):
        def memory_stats(self, _: torch.device) -> dict[str, int]:
            raise RuntimeError("Allocator for privateuseone is not a DeviceAllocator.")

    allocator = Unknown()
    monkeypatch.setattr(torch, "accelerator", allocator)
    DeviceMemory(torch.device("cuda", 0)).give_back()
    assert allocator.emptied == 0
