"""The devices of this machine as runs take them: one for each rank, shared by ranks, or places on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.backends.leases import DeviceLeases
from pytest_vdist.backends.sharing import way_out

_LEASE_TIMEOUT = 900.0


class MachineDevices:
    """The devices of one backend on this machine, leased across all sessions."""

    def __init__(
        self, backend: DeviceBackend, device_count: int, ranks_per_device: int = 1, runs_per_device: int = 1
    ) -> None:
        """Lease nothing yet.

        Up to `ranks_per_device` ranks get the same device where there are too few, and up to
        `runs_per_device` runs at once, of sessions that all let them.
        """
        self._backend, self._ranks_per_device = backend, ranks_per_device
        # What runs lease on the CPU is a place to run in, of which each has its own.
        runs_per_slot = 0 if backend.shares_device else runs_per_device
        self._leases = DeviceLeases(backend.name, device_slots(backend, device_count), runs_per_slot)

    def require(self, ranks: int, asked: str) -> None:
        """Raise ValueError where there are too few devices; `asked` says what needs so many ranks."""
        devices = len(self._leases.slots)
        if self._backend.shares_device or ranks <= devices * self._ranks_per_device:
            return
        shared = f", each for up to {self._ranks_per_device} ranks" if self._ranks_per_device > 1 else ""
        option = way_out(self._backend, ranks, devices)
        advice = f", mark the test, or pass {option}" if option else " or mark the test"
        raise ValueError(
            f"{asked} needs {ranks} devices of backend {self._backend.name!r}, this machine has "
            f"{devices}{shared}; ask for fewer{advice}"
        )

    @contextmanager
    def hold(
        self, ranks: int, *, teams: int = 1, preferred: Sequence[Sequence[str]] = ()
    ) -> Iterator[tuple[str, ...]]:
        """Hold a device for each rank, or all devices where ranks share them, and give their names.

        On the CPU that is a place to run in for each rank of each of `teams`, as far as there are so many,
        and no name is given. A free set of `preferred` is taken first. Raises LeaseTimeoutError after 900 s.
        """
        slots = self._leases.slots
        if self._backend.shares_device:
            with self._leases.hold(min(teams * ranks, len(slots)), timeout=_LEASE_TIMEOUT):
                yield ()
            return
        # Without a variable that hides devices, ranks can be placed on the first ones only.
        wanted = min(ranks, len(slots))
        among = slots if self._backend.visible_devices_variable else slots[:wanted]
        with self._leases.hold(wanted, among=among, preferred=preferred, timeout=_LEASE_TIMEOUT) as held:
            yield held


def device_slots(backend: DeviceBackend, device_count: int) -> list[str]:
    """Return the names under which the devices of this machine are leased.

    They are the driver's own, so that a session that may see some of them only agrees with one that sees all.
    Where ranks share a device the slots are places to run in: four for each core, and at least eight.
    """
    if backend.shares_device:
        return [str(n) for n in range(max(8, 4 * (os.cpu_count() or 1)))]
    visible = os.environ.get(backend.visible_devices_variable, "") if backend.visible_devices_variable else ""
    named = [name.strip() for name in visible.split(",") if name.strip()]
    return named[:device_count] if len(named) >= device_count else [str(n) for n in range(device_count)]
