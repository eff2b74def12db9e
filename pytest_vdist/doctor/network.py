"""The loopback on which ranks meet, and the look-up of its names. Times are in seconds."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence

from pytest_vdist.doctor.findings import Finding

LOOPBACK = "127.0.0.1"
LOOK_UP_DEADLINE = 8.0
_SLOW = 0.5
_PATIENCE = 5.0


def loopback(interfaces: Sequence[str], connect: Callable[[], float]) -> Finding:
    """Judge the interface `lo` and a connection through it; `connect` returns its time, or raises OSError."""
    if "lo" not in interfaces:
        return Finding(
            "loopback",
            f"missing, the interfaces are {', '.join(interfaces) or 'none'}",
            "there is no interface lo, which gloo uses between the ranks of a machine",
            "bring it up (ip link set lo up), or name another in GLOO_SOCKET_IFNAME",
        )
    try:
        seconds = connect()
    except OSError as error:
        problem = f"a connection to {LOOPBACK} fails: {error}"
        return Finding(
            "loopback", "lo, without connection", problem, "ip link set lo up; look at firewall rules"
        )
    return Finding("loopback", f"lo, a connection takes {seconds * 1e3:.1f} ms")


def interface_names() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def connect_to_self() -> float:
    """Connect to a port of our own on the loopback and return the time it took."""
    started = time.monotonic()
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(_PATIENCE)
        with socket.create_connection(listener.getsockname(), timeout=_PATIENCE):
            accepted, _ = listener.accept()
            accepted.close()
    return time.monotonic() - started


def name_look_up(
    address: str,
    look_up: Callable[[tuple[str, int], int], tuple[str, str]] = socket.getnameinfo,
    clock: Callable[[], float] = time.monotonic,
) -> Finding:
    """Judge how long it takes to look up the name of an address, as torch's TCPStore does of each peer's."""
    started = clock()
    try:
        answer, _ = look_up((address, 1), 0)
    except OSError as error:
        answer = f"no name ({error})"
    seconds = clock() - started
    value = f"{answer} in {seconds * 1e3:.1f} ms"
    if seconds <= _SLOW:
        return Finding(f"name of {address}", value)
    problem = f"the look-up of {address} takes {seconds:.1f} s, and init_process_group does it for each rank"
    return Finding(f"name of {address}", value, problem, look_up_remedy(address))


def look_up_remedy(address: str) -> str:
    return f"add the line '{address} localhost' to /etc/hosts, so that no name server is asked"
