"""Connections between torchrun's processes: found through its store, authenticated, never silent."""

from __future__ import annotations

import fcntl
import hmac
import os
import pickle
import secrets
import socket
import struct
from datetime import timedelta
from typing import Any

from multiprocess.connection import Connection

from pytest_vdist.ranks import _compat
from pytest_vdist.role import Role

_NONCE_BYTES = 32
_STALLED = 30  # seconds in which a peer that is there sends the rest of a message, or answers the kernel
_PROBE_AFTER, _PROBE_EVERY, _PROBES = 10, 5, 4
_GET_ADDRESS_OF_INTERFACE = 0x8915  # SIOCGIFADDR, netdevice(7)


class RefusedError(Exception):
    """Raised when the peer does not know the secret of the session."""


class MeetingStore:
    """torchrun's store, where the controller publishes its port and the secret of the session."""

    def __init__(self, role: Role, patience: float) -> None:
        """Connect. Raises OSError if there is no store within `patience` seconds."""
        try:
            store = _compat.TCPStore(
                role.master_addr,
                role.master_port,
                is_master=role.is_controller and not role.agent_store,
                wait_for_workers=False,
                timeout=timedelta(seconds=patience),
            )
        except RuntimeError as error:  # torch's DistNetworkError is one
            raise OSError(
                f"no store at MASTER_ADDR={role.master_addr} MASTER_PORT={role.master_port}: {error}"
            ) from None
        self._patience = patience
        self._store: Any = _compat.PrefixStore(f"vdist/{role.attempt}", store)

    def publish(self, port: int, secret: bytes) -> None:
        self._store.set("controller", f"{port} {secret.hex()}")

    def await_controller(self) -> tuple[int, bytes]:
        """Return port and secret. Raises OSError if nobody has published them in time."""
        try:
            self._store.wait(["controller"], timedelta(seconds=self._patience))
            port, secret = self._store.get("controller").decode().split()
        except RuntimeError as error:  # torch's DistStoreError is one
            reason = str(error).partition("\n")[0]
            raise OSError(f"rank 0 did not say within {self._patience:g} s where it is: {reason}") from None
        return int(port), bytes.fromhex(secret)


def listen(host: str) -> socket.socket:
    """Return a socket on a free port; "" stands for all interfaces."""
    return socket.create_server((host, 0), backlog=128)


def connect(host: str, port: int, secret: bytes) -> Connection:
    """Return a connection to the controller, who knows the secret. Raises OSError or RefusedError."""
    return _secured(socket.create_connection((host, port), _STALLED), secret, b"agent", b"controller")


def accepted(incoming: socket.socket, secret: bytes) -> Connection:
    """Return a connection to one of torchrun's processes, who knows the secret. Raises as `connect`."""
    return _secured(incoming, secret, b"controller", b"agent")


def send(connection: Connection, message: object) -> None:
    connection.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))


def receive(connection: Connection) -> Any:
    """Return the next message. Raises EOFError or OSError where the connection has ended."""
    return pickle.loads(connection.recv_bytes())  # noqa: S301 - the peer knows the session's secret


def local_address(connection: Connection) -> str:
    """Return the address of this end."""
    with socket.socket(fileno=os.dup(connection.fileno())) as own:
        return str(own.getsockname()[0])


def interface_of(address: str) -> str:
    """Return the network interface that has the IPv4 address, "" if none has."""
    wanted = socket.inet_aton(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(any_socket, _GET_ADDRESS_OF_INTERFACE, request)
            except OSError:  # it has no address
                continue
            if answer[20:24] == wanted:
                return name
    return ""


def _secured(peer: socket.socket, secret: bytes, own: bytes, other: bytes) -> Connection:
    """Prove to each other, by a digest of the other's random number, that both know the secret."""
    _limit_waits(peer)
    connection = Connection(peer.detach())
    try:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        connection.send_bytes(nonce)
        theirs = connection.recv_bytes(_NONCE_BYTES)
        connection.send_bytes(hmac.digest(secret, own + theirs, "sha256"))
        proof = connection.recv_bytes(_NONCE_BYTES)
        if not hmac.compare_digest(proof, hmac.digest(secret, other + nonce, "sha256")):
            raise RefusedError("the peer does not know the secret of this session")
    except BaseException:
        connection.close()
        raise
    return connection


def _limit_waits(peer: socket.socket) -> None:
    """Make the kernel end a connection whose other end is silent, and reads in the middle of a message."""
    peer.settimeout(None)
    limit = struct.pack("ll", _STALLED, 0)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _PROBE_AFTER),
        ("TCP_KEEPINTVL", _PROBE_EVERY),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", _STALLED * 1000),
    ):
        if hasattr(socket, option):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
