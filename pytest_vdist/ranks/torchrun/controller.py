"""The controller's side of a session that torchrun has started: who came, who is lost, their ranks."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from multiprocess.connection import Connection, wait

from pytest_vdist.ranks.failures import RanksUnavailableError
from pytest_vdist.ranks.torchrun import channel
from pytest_vdist.ranks.torchrun.messages import Farewell, Goodbye, Hello, Launch, Prepare
from pytest_vdist.ranks.torchrun.own_ranks import LOOPBACK
from pytest_vdist.ranks.torchrun.remote import RemoteRank
from pytest_vdist.ranks.torchrun.software import software
from pytest_vdist.ranks.world import Rendezvous
from pytest_vdist.role import Role

_LAUNCH_PATIENCE = 30.0


class JoinError(Exception):
    """Raised when not all of torchrun's processes came to serve the session."""


@dataclass(frozen=True)
class Member:
    """One of torchrun's processes. `control` is None for the controller itself.

    `clock_offset` in seconds is what the controller's clock is ahead of the member's.
    """

    rank: int
    node: int
    local_rank: int
    host: str
    control: Connection | None
    clock_offset: float = 0.0

    def __str__(self) -> str:
        return f"torchrun's process RANK={self.rank} on node {self.node} ({self.host})"


class Controller:
    """Collects torchrun's processes, has them start ranks, and notices when one of them is lost."""

    def __init__(self, role: Role, patience: float) -> None:
        """Publish where the controller is. Raises OSError if torchrun's store does not answer in time."""
        self._role = role
        self._secret = secrets.token_bytes(32)
        self._listener = channel.listen("" if role.several_nodes else LOOPBACK)
        self._changed = threading.Condition()
        own = Member(role.rank, role.node, role.local_rank, socket.gethostname(), None)
        self._members = {role.rank: own}
        self._unlike: dict[int, str] = {}
        self._interface = "" if role.several_nodes else "lo"
        self._tickets = itertools.count(1)
        self._launched: dict[int, queue.SimpleQueue[Connection]] = {}
        self._lost: dict[int, str] = {}
        self._closed = threading.Event()
        self._store = channel.MeetingStore(role, patience)
        self._store.publish(self._listener.getsockname()[1], self._secret)
        threading.Thread(target=self._accept, name="vdist-accept", daemon=True).start()

    def join(self, patience: float) -> list[Member]:
        """Return torchrun's processes, node by node. Raises JoinError if some do not come in time."""
        with self._changed:
            complete = self._changed.wait_for(
                lambda: self._unlike or len(self._members) == self._role.world_size, patience
            )
        if self._unlike:
            rank, theirs = next(iter(self._unlike.items()))
            raise JoinError(
                f"all nodes need the same software, got {theirs} at RANK={rank} and {software()} at RANK=0; "
                "install the same on all"
            )
        if not complete:
            missing = sorted(set(range(self._role.world_size)) - set(self._members))
            names = ", ".join(map(str, missing))
            raise JoinError(
                f"of {self._role.world_size} processes of torchrun {len(missing)} did not come within "
                f"{patience:g} s: RANK {names}; look at their output, start the same command on every node, "
                "or pass a longer --vdist-join-timeout"
            )
        return sorted(self._members.values(), key=lambda member: (member.node, member.local_rank))

    @property
    def interface(self) -> str:
        """The network interface over which other nodes reach this one, "" if it is not known."""
        return self._interface

    def prepare(self, backend: str) -> None:
        """Have all members get ready at the same time. One that is lost already will be missed later."""
        for member in self._members.values():
            if member.control is not None:
                with contextlib.suppress(OSError):
                    channel.send(member.control, Prepare(backend, self._interface_at(member)))

    def launch(self, member: Member, backend: str, rendezvous: Rendezvous) -> RemoteRank:
        """Start a rank at a member. Raises RanksUnavailableError if that is lost."""
        ticket = next(self._tickets)
        answers = self._launched[ticket] = queue.SimpleQueue()
        try:
            assert member.control is not None
            channel.send(
                member.control,
                Launch(
                    ticket, backend, rendezvous, tuple(filter(None, sys.path)), self._interface_at(member)
                ),
            )
            connection = answers.get(timeout=_LAUNCH_PATIENCE)
        except (OSError, queue.Empty):
            reason = self._lost.get(member.rank, f"it did not answer within {_LAUNCH_PATIENCE:g} s")
            raise RanksUnavailableError(
                f"rank {rendezvous.rank} could not be started by {member}: {reason}", []
            ) from None
        finally:
            del self._launched[ticket]
        return RemoteRank(rendezvous.rank, connection, str(member), member.clock_offset)

    def watch(self, on_loss: Callable[[str], None]) -> None:
        """Have `on_loss` called, in another thread, with a text when a member or torchrun itself is lost."""
        threading.Thread(target=self._watch, args=(on_loss,), name="vdist-watch", daemon=True).start()

    def close(self) -> None:
        """Send everybody home. Members that are waiting end well."""
        self._closed.set()
        self._listener.close()
        with self._changed:
            members = list(self._members.values())
        for member in members:
            if member.control is not None:
                with contextlib.suppress(OSError):
                    channel.send(member.control, Goodbye())
                member.control.close()

    def _interface_at(self, member: Member) -> str:
        """Name the interface for gloo at a member; one of another node knows it from its own connection."""
        return self._interface if member.node == self._role.node else ""

    def _accept(self) -> None:
        while True:
            try:
                incoming, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._greet, args=(incoming,), name="vdist-greet", daemon=True).start()

    def _greet(self, incoming: socket.socket) -> None:
        """Find out who it is. A stranger, or one who says nothing, is sent away."""
        try:
            connection = channel.accepted(incoming, self._secret)
            hello: Hello = channel.receive(connection)
        except (EOFError, OSError, channel.RefusedError):
            return
        if hello.ticket:
            waiting = self._launched.get(hello.ticket)
            if waiting is None:
                connection.close()
            else:
                waiting.put(connection)
        else:
            self._admit(hello, connection)

    def _admit(self, hello: Hello, connection: Connection) -> None:
        offset = time.monotonic() - hello.monotonic
        member = Member(hello.rank, hello.node, hello.local_rank, hello.host, connection, offset)
        with self._changed:
            self._members[hello.rank] = member
            if hello.software != software():
                self._unlike[hello.rank] = hello.software
            if self._role.several_nodes and hello.node != self._role.node:
                self._interface = channel.interface_of(channel.local_address(connection))
            self._changed.notify_all()

    def _watch(self, on_loss: Callable[[str], None]) -> None:
        torchrun = os.pidfd_open(os.getppid())
        controls: dict[Any, Member] = {m.control: m for m in self._members.values() if m.control}
        ready = wait([torchrun, *controls])
        if self._closed.is_set():
            return
        if torchrun in ready:
            on_loss("torchrun has ended before the session")
            return
        texts = [self._loss(controls[each]) for each in ready]
        on_loss("; ".join(texts))

    def _loss(self, member: Member) -> str:
        """Note that a member is lost, and why, if it could still say that."""
        try:
            farewell: Farewell = channel.receive(member.control)
            reason = farewell.reason
        except (EOFError, OSError):
            reason = "its connection has ended; torchrun on that node says how the process did"
        self._lost[member.rank] = reason
        return f"{member} is lost: {reason}"
