"""Host frameworks: what they call in a communicator that a vendor plugs in."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from pytest_vdist.interface.calls import Names, calls_in
from pytest_vdist.interface.signatures import Call

REFERENCE, VLLM = "reference", "vllm"


class InterfaceError(Exception):
    """Raised when a host or a class cannot be had, or a host's calls are not where they were."""


@dataclass(frozen=True)
class Host:
    """A framework's base class, or protocol, of communicators, and the calls that it makes on them.

    `calls` are by method, those of the constructor by `__init__`; without any, the signatures of the base
    say what may be called.
    """

    name: str
    base: type
    calls: Mapping[str, Sequence[Call]]


@dataclass(frozen=True)
class _Source:
    """Where a known host has its base class and its calls."""

    base: str
    modules: tuple[str, ...]
    names: Names


_KNOWN = {
    REFERENCE: _Source(
        "pytest_vdist.reference_impl.communicators.protocol:Communicator",
        (
            "pytest_vdist.reference_impl.coordinator",
            "pytest_vdist.reference_impl.checked_collectives",
        ),
        Names(frozenset({"communicator", "_communicator"}), frozenset({"cls"})),
    ),
    VLLM: _Source(
        "vllm.distributed.device_communicators.base_device_communicator:DeviceCommunicatorBase",
        ("vllm.distributed.parallel_state",),
        Names(frozenset({"device_communicator"}), frozenset({"device_comm_cls"})),
    ),
}
KNOWN_HOSTS = tuple(_KNOWN)


def host_named(text: str) -> Host:
    """Return a known host, or the one with the base class `pkg.mod:Class`.

    Raises InterfaceError where it cannot be imported, and where a known host calls nothing any more.
    """
    if text not in _KNOWN:
        return Host(text, class_named(text), {})
    source = _KNOWN[text]
    calls: dict[str, list[Call]] = {}
    for name in source.modules:
        module = _import(name)
        for method, made in calls_in(inspect.getsource(module), source.names, _place(module)).items():
            calls.setdefault(method, []).extend(made)
    base = class_named(source.base)
    silent = [method for method in ("__init__", "all_reduce", "all_gather") if method not in calls]
    if silent:
        raise InterfaceError(
            f"the host {text!r} has moved: no call of {', '.join(silent)} on "
            f"{' or '.join(sorted(source.names.objects))} in {', '.join(source.modules)}; pass "
            f"--vdist-interface={source.base}=pkg.mod:Class to hold a class against the base class alone"
        )
    return Host(text, base, calls)


def class_named(text: str) -> Any:
    """Return the class `pkg.mod:Class`. Raises InterfaceError where it cannot be imported or is none."""
    place, _, name = text.partition(":")
    found = getattr(_import(place), name, None)
    if not callable(found):
        raise InterfaceError(f"{place} has no class {name!r}; pass pkg.mod:Class")
    return found


def picked_by(host: str, device_type: str) -> Any:
    """Return the class that a known host makes for the device. Raises InterfaceError for another host."""
    if host == REFERENCE:
        return _import("pytest_vdist.reference_impl.platform").communicator_class(device_type)
    if host == VLLM:
        return _import("pytest_vdist.implementations.vllm").communicator_class(device_type)
    raise InterfaceError(f"no class was named for the host {host!r}; pass {host}=pkg.mod:Class")


def _import(name: str) -> ModuleType:
    try:
        return import_module(name)
    except Exception as error:
        raise InterfaceError(f"cannot import {name}: {type(error).__name__}: {error}") from error


def _place(module: ModuleType) -> str:
    return module.__name__.replace(".", "/") + ".py"
