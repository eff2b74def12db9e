"""A coordinator against the protocol of the suites, a communicator against its host."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from inspect import Signature
from typing import Any

from pytest_vdist.implementations.protocol import Coordinator
from pytest_vdist.interface.hosts import Host
from pytest_vdist.interface.signatures import (
    CONSTRUCTOR,
    Difference,
    brief,
    data_by_position,
    narrower,
    other_defaults,
    refusals,
    signature_of,
)

RECEIVERS: Mapping[str, tuple[str, ...]] = {
    "recv": ("send",),
    "recv_object": ("send_object", "isend_object"),
    "recv_tensor_dict": ("send_tensor_dict",),
    "irecv_tensor_dict": ("isend_tensor_dict",),
}
"""Methods that nobody calls where all of the operations are declared as unsupported."""


def methods_of(cls: type) -> dict[str, Signature]:
    """Return the public methods that a class or its bases define, without `self`; none of `object`."""
    found: dict[str, Signature] = {}
    for base in reversed(cls.__mro__[:-1]):
        for name, value in vars(base).items():
            if not name.startswith("_") and inspect.isfunction(value):
                signature = signature_of(cls, name)
                if signature is not None:
                    found[name] = signature
    return found


def coordinator_differences(owner: object, unsupported: Collection[str]) -> dict[str, list[str]]:
    """Compare a coordinator, or its class, with the protocol: what is missing or refused, other defaults.

    Operations that are declared as unsupported are left out.
    """
    missing, refused, defaults = [], [], []
    for name, asked in methods_of(Coordinator).items():
        if all(operation in unsupported for operation in RECEIVERS.get(name, (name,))):
            continue
        method = f"{_name(owner)}.{name}"
        found = _found(owner, name)
        if isinstance(found, str):
            missing.append(Difference(method, "", f"{name}{brief(asked)}", found))
        elif found is not None:
            refused += narrower(method, asked, found)
            defaults += other_defaults(method, asked, found)
    return _texts(missing=missing, calls=refused, defaults=defaults)


def communicator_differences(host: Host, cls: Any) -> dict[str, list[str]]:
    """Compare a communicator's class with what its host calls, and with the host's base class.

    `constructor` and `calls` break the host; `overrides` accept less than what they override, in a way in
    which the host does not call them.
    """
    base = methods_of(host.base)
    refused, overrides = [], []
    for name in dict.fromkeys((*base, *host.calls)):
        if name == CONSTRUCTOR or (host.calls and name not in host.calls):
            continue
        refused += _refused(host, cls, name, base.get(name))
    for name, asked in base.items() if host.calls else ():
        found = _found(cls, name)
        if isinstance(found, Signature) and getattr(cls, name) is not getattr(host.base, name):
            overrides += narrower(f"{_name(cls)}.{name}", data_by_position(asked), found)
    return _texts(constructor=_constructor(host, cls), calls=refused, overrides=overrides)


def _constructor(host: Host, cls: Any) -> list[Difference]:
    found = signature_of(cls, CONSTRUCTOR)
    asked = signature_of(host.base, CONSTRUCTOR)
    if found is None:
        return []
    if host.calls:
        return [
            each
            for call in host.calls.get(CONSTRUCTOR, ())
            for each in refusals(_name(cls), call, found, asked)
        ]
    return [] if asked is None else narrower(_name(cls), asked, found)


def _refused(host: Host, cls: Any, name: str, asked: Signature | None) -> list[Difference]:
    method = f"{_name(cls)}.{name}"
    calls = host.calls.get(name, ())
    found = _found(cls, name)
    if isinstance(found, str):
        # What the base does not have either the host calls only where it has found it.
        expected = f"{name}{brief(asked)}" if asked else ""
        callers = f", called by {calls[0].place}" if calls else ""
        return [Difference(method, "", f"{expected}{callers}", found)] if asked else []
    if found is None:
        return []
    if not calls:
        return [] if asked is None else narrower(method, data_by_position(asked), found)
    return list(dict.fromkeys(each for call in calls for each in refusals(method, call, found, asked)))


def _found(owner: object, name: str) -> Signature | str | None:
    """Return the signature of a method, what is there instead, or None where that cannot be told."""
    try:
        return signature_of(owner, name)
    except AttributeError:
        return "no such method"


def _name(owner: object) -> str:
    return getattr(owner, "__name__", type(owner).__name__)


def _texts(**differences: list[Difference]) -> dict[str, list[str]]:
    return {name: list(dict.fromkeys(map(str, found))) for name, found in differences.items()}
