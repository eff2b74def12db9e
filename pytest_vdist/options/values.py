"""The values that hold in a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.backends.registry import availability
from pytest_vdist.backends.sharing import ranks_on_one_device, way_out
from pytest_vdist.implementations.spec import ImplementationSpec
from pytest_vdist.options.parsers import MAX_WORLD_SIZE, Shard
from pytest_vdist.options.row import DEFAULT, origin


@dataclass(frozen=True)
class GroupLimits:
    """How long operations on process groups may take, in seconds; None leaves it to the backend."""

    timeout: float | None
    cpu_timeout: float | None


@dataclass(frozen=True)
class Options:
    """The values that hold in this session; `sources` says where each row of the table has its value from."""

    backends: tuple[DeviceBackend, ...]
    implementation: ImplementationSpec
    split_group: tuple[bool, ...]
    compile_modes: tuple[str, ...]  # ("all",) until the implementation is asked, see modes.py
    world_sizes: tuple[int, ...]
    ranks_per_device: int
    runs_per_device: int
    timeout: float
    distributed_timeout_seconds: float | None
    cpu_distributed_timeout_seconds: float | None
    verify: int
    control: bool
    effort: str
    seed: int
    replay: str | None
    performance: str
    shard: Shard | None
    interface: tuple[tuple[str, str], ...] | None
    certify: str | None
    profiles: tuple[str, ...] | None
    manifest: str | None
    waivers: str | None
    launcher: str
    join_timeout: float
    sources: Mapping[str, str]
    processes: int | None = None  # of torchrun, None where that has not started the session

    @property
    def limits(self) -> GroupLimits:
        """The limits of process groups: those of the device, and those of the CPU."""
        return GroupLimits(self.distributed_timeout_seconds, self.cpu_distributed_timeout_seconds)

    @property
    def used(self) -> bool:
        """Whether anybody set any option."""
        return any(source != DEFAULT for source in self.sources.values())

    def is_given(self, name: str) -> bool:
        return self.sources[name] != DEFAULT

    def origin(self, name: str) -> str:
        return origin(self.sources[name])

    def backend_named(self, name: str) -> DeviceBackend:
        """Return the selected backend of that name. Raises LookupError for one that is not selected."""
        for backend in self.backends:
            if backend.name == name:
                return backend
        selected = ", ".join(backend.name for backend in self.backends)
        raise LookupError(f"backend {name!r} is not selected, {self.origin('backend')} selects {selected}")

    def world_sizes_on(self, backend: DeviceBackend) -> tuple[int, ...]:
        """Return the sizes to test on a backend: those for whose ranks it has devices."""
        most = self.most_ranks_on(backend)
        return tuple(size for size in self.world_sizes if size <= most)

    def most_ranks_on(self, backend: DeviceBackend) -> int:
        """Return for how many ranks there are devices, or processes of torchrun."""
        if self.processes is not None:
            return self.processes
        if backend.shares_device:
            return MAX_WORLD_SIZE
        return availability(backend).device_count * self.ranks_per_device

    def ranks_on_one_device(self, world_size: int, backend: DeviceBackend) -> int:
        """Return how many ranks of a world get the same device, at most; on the CPU none do."""
        if backend.shares_device or self.processes is not None:
            return 1
        return ranks_on_one_device(world_size, availability(backend).device_count)

    def way_to_share(self, world_size: int, backend: DeviceBackend) -> str:
        """Return the option with which a world finds devices on this machine, "" where there is none."""
        return way_out(backend, world_size, availability(backend).device_count)


OPTIONS = pytest.StashKey[Options]()


def options_of(config: pytest.Config) -> Options:
    """Return the options of the session, which are there from pytest_configure on."""
    return config.stash[OPTIONS]
