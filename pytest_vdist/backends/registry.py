"""Which device backends there are: the built-in ones, and vendors' by entry point."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable
from importlib import metadata

from pytest_vdist.backends import cpu, cuda, xpu
from pytest_vdist.backends.base import Availability, BackendError, DeviceBackend

ENTRY_POINT_GROUP = "pytest_vdist.backends"
BUILT_IN = {backend.name: backend for backend in (cpu.BACKEND, cuda.BACKEND, xpu.BACKEND)}


def find_backend(name: str, *, origin: str) -> DeviceBackend:
    """Return the device backend of that name, without asking for its device.

    `origin` says where the name came from. Raises BackendError when no backend or more than one has the name,
    or when a vendor's entry point does not give one.
    """
    vendors = [point for point in _entry_points() if point.name == name]
    if name in BUILT_IN and vendors:
        vendor = _distribution(vendors[0])
        raise BackendError(
            f"backend {name!r} is built in, and the distribution {vendor} registers it as well, "
            f"got {name!r} from {origin}; uninstall {vendor}"
        )
    if name in BUILT_IN:
        return BUILT_IN[name]
    if not vendors:
        raise BackendError(_unknown(name, origin))
    if len(vendors) > 1:
        names = ", ".join(_distribution(point) for point in vendors)
        raise BackendError(
            f"more than one backend is named {name!r}, got {name!r} from {origin}; "
            f"uninstall all but one of the distributions {names}"
        )
    return _load(vendors[0], origin)


def require_devices(backend: DeviceBackend, *, origin: str) -> Availability:
    """Return what this machine has of the backend's device. Raises BackendError if it has none."""
    found = availability(backend)
    if not found.available:
        raise BackendError(
            f"backend {backend.name!r} has no device on this machine, got {backend.name!r} from {origin}; "
            f"looked for {found.looked_for}; to get it, {found.remedy}"
        )
    return found


def availability(backend: DeviceBackend) -> Availability:
    """Return what the backend's probe finds on this machine, asked once per process."""
    return _probe_once(backend.probe)


@functools.cache
def _probe_once(probe: Callable[[], Availability]) -> Availability:
    return probe()


def _entry_points() -> metadata.EntryPoints:
    return metadata.entry_points(group=ENTRY_POINT_GROUP)


def _distribution(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "(unknown distribution)"


def _unknown(name: str, origin: str) -> str:
    known = sorted({*BUILT_IN, *(point.name for point in _entry_points())})
    near = difflib.get_close_matches(name, known, n=2)
    suggestion = f"did you mean {' or '.join(near)}? " if near else ""
    return (
        f"unknown backend, got {name!r} from {origin}; {suggestion}the known backends are "
        f"{', '.join(known)}; vendors add theirs by the entry-point group {ENTRY_POINT_GROUP}"
    )


def _load(point: metadata.EntryPoint, origin: str) -> DeviceBackend:
    place = f"the entry point {point.name} = {point.value} of the distribution {_distribution(point)}"
    advice = f"repair or uninstall {_distribution(point)}"
    try:
        loaded = point.load()
        backend = loaded() if callable(loaded) else loaded
    except Exception as error:
        raise BackendError(
            f"cannot load backend {point.name!r} from {origin}: {place} raised "
            f"{type(error).__name__}: {error}; {advice}"
        ) from error
    if not isinstance(backend, DeviceBackend):
        raise BackendError(
            f"cannot load backend {point.name!r} from {origin}: {place} must give a DeviceBackend or a "
            f"callable without arguments that returns one, got {backend!r}; {advice}"
        )
    if backend.name != point.name:
        raise BackendError(
            f"cannot load backend {point.name!r} from {origin}: {place} gives a backend that is named "
            f"{backend.name!r}; {advice}"
        )
    return backend
