"""The ranks of one of torchrun's processes: one for each team, on the device that is the process's own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.backends.devices import device_slots
from pytest_vdist.backends.leases import DeviceLeases
from pytest_vdist.backends.registry import availability
from pytest_vdist.ranks.launcher import Launcher
from pytest_vdist.ranks.process import RankProcess
from pytest_vdist.ranks.world import Rendezvous
from pytest_vdist.role import Role

_LEASE_TIMEOUT = 60.0
LOOPBACK = "127.0.0.1"


class OwnRanks:
    """Starts ranks here. The device is leased from the first of them until `close`."""

    def __init__(self, role: Role, backend_named: Callable[[str], DeviceBackend]) -> None:
        self._role = role
        self._backend_named = backend_named
        self._launchers: dict[str, Launcher] = {}
        self._leases = ExitStack()
        self._lock = threading.Lock()  # starting changes the environment for a moment

    def launcher(self, backend_name: str, interface: str) -> Launcher:
        """Return what starts ranks of a backend. Raises LookupError or LeaseTimeoutError without a device."""
        with self._lock:
            if backend_name not in self._launchers:
                backend = self._backend_named(backend_name)
                if not backend.shares_device:
                    self._lease(backend)
                host = self._role.master_addr if self._role.several_nodes else LOOPBACK
                self._launchers[backend_name] = Launcher(backend, host=host, interface=interface)
            return self._launchers[backend_name]

    def prepare(self, backend_name: str, interface: str) -> None:
        """Start what all ranks of a backend have in common."""
        launcher = self.launcher(backend_name, interface)
        with self._lock, launcher.starting():
            pass

    def start(self, backend_name: str, rendezvous: Rendezvous, interface: str) -> RankProcess:
        launcher = self.launcher(backend_name, interface)
        with self._lock, launcher.starting():
            return launcher.start_at(rendezvous)

    def close(self) -> None:
        self._leases.close()

    def _lease(self, backend: DeviceBackend) -> None:
        slots = device_slots(backend, availability(backend).device_count)
        if self._role.local_rank >= len(slots):
            raise LookupError(
                f"LOCAL_RANK={self._role.local_rank} needs a device of its own, this machine has "
                f"{len(slots)} of backend {backend.name!r}; start fewer processes on it"
            )
        leases = DeviceLeases(backend.name, slots)
        own = [slots[self._role.local_rank]]
        self._leases.enter_context(leases.hold(1, among=own, timeout=_LEASE_TIMEOUT))
