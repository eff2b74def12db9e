"""Devices that are shared: where there are more ranks than devices, they are placed as on several nodes."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_vdist.backends.base import DeviceBackend

MAX_RANKS_PER_DEVICE = 16
MAX_RUNS_PER_DEVICE = 8


@dataclass(frozen=True)
class Place:
    """Where a rank is. Ranks of one node have a device each; those of different nodes may have the same."""

    node: int
    local_rank: int
    local_world_size: int


def place_of(rank: int, world_size: int, devices: int) -> Place:
    """Return the place of a rank on `devices` devices, at least one: nodes are filled one after the other."""
    node, local_rank = divmod(rank, devices)
    return Place(node, local_rank, min(devices, world_size - node * devices))


def ranks_on_one_device(world_size: int, devices: int) -> int:
    """Return how many ranks of a world have the same device, at most."""
    return -(-world_size // devices)


def way_out(backend: DeviceBackend, ranks: int, devices: int) -> str:
    """Return the option with which so many ranks find devices; "" where they cannot share that many."""
    most = ranks_on_one_device(ranks, devices) if devices else 0
    if backend.sharing_environment is None or not 1 < most <= MAX_RANKS_PER_DEVICE:
        return ""
    return f"--vdist-ranks-per-device={most}"


def node_size(ranks: int, devices: int) -> int:
    """Return how many ranks each of several equal nodes has, the most that have a device each."""
    return max(size for size in range(1, min(ranks, devices) + 1) if ranks % size == 0)


def sharing_environment(backend: DeviceBackend, node: int) -> dict[str, str]:
    """Return what ranks of a node need in their environment where ranks of another one have their devices."""
    template = backend.sharing_environment or {}
    return {name: value.format(node=node) for name, value in template.items()}
