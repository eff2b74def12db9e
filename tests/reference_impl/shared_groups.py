"""What the tests of groups that share memory have in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from pytest_vdist.reference_impl.communicators.cpu import CpuCommunicator
from pytest_vdist.reference_impl.coordinator import GroupCoordinator

ENVIRONMENT = {"VDIST_SHARED_MEMORY": "1"}
SHORT, LONG = 1.0, 60.0
# A peer's end is noticed within 0.1 s; the rest is for a machine on which nothing runs when it should.
SECONDS_TO_NOTICE = 2.0


def group_of(
    ranks: list[int] | None = None, *, timeout: float = LONG, cpu_timeout: float = LONG
) -> GroupCoordinator:
    """Make a group of all ranks, which must come to share memory."""
    group = coordinator(ranks, timeout=timeout, cpu_timeout=cpu_timeout)
    assert communicator_of(group).shared_memory_obstacle is None
    return group


def coordinator(
    ranks: list[int] | None = None, *, timeout: float = LONG, cpu_timeout: float = LONG
) -> GroupCoordinator:
    everyone = list(range(dist.get_world_size())) if ranks is None else ranks
    return GroupCoordinator(
        [everyone], 0, group_name="tp", device_type="cpu", timeout=timeout, cpu_timeout=cpu_timeout
    )


def communicator_of(group: GroupCoordinator) -> CpuCommunicator:
    assert isinstance(group.device_communicator, CpuCommunicator)
    return group.device_communicator


def error_of(function: Callable[[], Any]) -> tuple[str, float]:
    """Return the text of a RuntimeError, or nothing, and the seconds until then."""
    start = time.monotonic()
    try:
        function()
    except RuntimeError as error:
        return str(error), time.monotonic() - start
    return "", time.monotonic() - start


def made(rank: int, seed: int, numel: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    if dtype.is_floating_point:
        return torch.randn(numel, generator=generator).to(dtype)
    return torch.randint(0, 100, (numel,), generator=generator).to(dtype)
