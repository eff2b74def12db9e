"""Which device backends there are: the built-in ones, and vendors' by entry point or hook."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata

from pytest_vdist.backends import cpu, cuda, xpu
from pytest_vdist.backends.base import Availability, BackendError, DeviceBackend

ENTRY_POINT_GROUP = "pytest_vdist.backends"
HOOK = "pytest_vdist_backends"
BUILT_IN = {backend.name: backend for backend in (cpu.BACKEND, cuda.BACKEND, xpu.BACKEND)}


def backends_of_hook(results: Iterable[object]) -> tuple[DeviceBackend, ...]:
    """Return the backends that the hook's implementations gave. Raises BackendError for anything else."""
    backends: list[DeviceBackend] = []
    for result in results:
        given = list(result) if isinstance(result, Sequence) else [result]
        wrong = [value for value in given if not isinstance(value, DeviceBackend)]
        if wrong:
            raise BackendError(
                f"the hook {HOOK} must return a sequence of DeviceBackend, got {wrong[0]!r}; "
                f"repair the conftest.py or plugin that implements it"
            )
        backends += [value for value in given if isinstance(value, DeviceBackend)]
    return tuple(backends)


def find_backend(name: str, *, origin: str, of_hook: Sequence[DeviceBackend] = ()) -> DeviceBackend:
    """Return the device backend of that name, without asking for its device.

    `origin` says where the name came from, `of_hook` are the backends that conftest.py files and plugins
    give. Raises BackendError when no backend or more than one has the name, or when a vendor's entry point
    does not give one.
    """
    vendors = [point for point in _entry_points() if point.name == name]
    hooked = [backend for backend in of_hook if backend.name == name]
    if hooked and (name in BUILT_IN or vendors or len(hooked) > 1):
        raise BackendError(
            f"the hook {HOOK} gives a backend {name!r}, and {_other(name, vendors)} as well, got {name!r} "
            f"from {origin}; give it another name in the conftest.py or plugin that implements the hook"
        )
    if hooked:
        return hooked[0]
    if name in BUILT_IN and vendors:
        vendor = _distribution(vendors[0])
        raise BackendError(
            f"backend {name!r} is built in, and the distribution {vendor} registers it as well, "
            f"got {name!r} from {origin}; uninstall {vendor}"
        )
    if name in BUILT_IN:
        return BUILT_IN[name]
    if not vendors:
        raise BackendError(_unknown(name, origin, of_hook))
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


def require_sharing(backend: DeviceBackend, ranks_per_device: int, *, origin: str) -> None:
    """Raise BackendError where so many ranks are to share a device, and the backend does not say how."""
    if ranks_per_device > 1 and backend.sharing_environment is None and not backend.shares_device:
        raise BackendError(
            f"ranks per device must be 1 on {backend.name}, got {ranks_per_device} from {origin}: the "
            "backend does not say how ranks share a device; leave it out, or give the DeviceBackend a "
            "sharing_environment"
        )


def availability(backend: DeviceBackend) -> Availability:
    """Return what the backend's probe finds on this machine, asked once per process.

    Raises BackendError where the probe raises, or returns something else.
    """
    try:
        found = _probe_once(backend.probe)
    except Exception as error:
        raise _wrong_probe(backend, f"raised {type(error).__name__}: {error}") from error
    if not isinstance(found, Availability):
        raise _wrong_probe(backend, f"returned {found!r}")
    return found


@functools.cache
def _probe_once(probe: Callable[[], object]) -> object:
    return probe()


def _wrong_probe(backend: DeviceBackend, problem: str) -> BackendError:
    return BackendError(
        f"the probe of backend {backend.name!r}, {_name_of(backend.probe)}, {problem}; it must return "
        "pytest_vdist.Availability, with device_count 0 where there is no device"
    )


def _name_of(function: object) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return f"{module}.{name}" if module and name else repr(function)


def _entry_points() -> metadata.EntryPoints:
    return metadata.entry_points(group=ENTRY_POINT_GROUP)


def _distribution(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "(unknown distribution)"


def _other(name: str, vendors: Sequence[metadata.EntryPoint]) -> str:
    """Say who else has a backend of the name that the hook gives."""
    if name in BUILT_IN:
        return "the plugin itself has one"
    return f"the distribution {_distribution(vendors[0])} registers one" if vendors else "gives another"


def _unknown(name: str, origin: str, of_hook: Sequence[DeviceBackend]) -> str:
    names = (point.name for point in _entry_points())
    known = sorted({*BUILT_IN, *names, *(backend.name for backend in of_hook)})
    near = difflib.get_close_matches(name, known, n=2)
    suggestion = f"did you mean {' or '.join(near)}? " if near else ""
    return (
        f"unknown backend, got {name!r} from {origin}; {suggestion}the known backends are "
        f"{', '.join(known)}; vendors add theirs by the entry-point group {ENTRY_POINT_GROUP} "
        f"or the hook {HOOK}"
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
