"""How the ranks of a group find out that they share memory, and connect: all of them or none."""

from __future__ import annotations

import os
import platform
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from ...envs import shared_memory_is_wanted  # noqa: TID252
from ...ordered_group import OrderedGroup  # noqa: TID252
from . import segment as segments
from .link import Link
from .links import Deadline, Links
from .segment import Segment

# CPUs by their name in `platform.machine`. Others may order memory more weakly than these; what is built on
# here does not depend on it, but has not been seen to work there.
_HAS_RUN_ON = frozenset({"x86_64", "AMD64"})
ADDRESS = "vdist"  # of sockets, before what makes them unique
_SECRET_SIZE = 16
_HELLO_SIZE = _SECRET_SIZE + 4


@dataclass(frozen=True)
class Connected:
    """What ranks that share memory have in common."""

    segment: Segment
    links: Links


@dataclass(frozen=True)
class _Invitation:
    """What a rank tells the others over torch.distributed: where it listens, and how it knows its own."""

    obstacle: str | None
    address: str = ""
    secret: bytes = b""
    token: bytes = b""


def connect(cpu_group: OrderedGroup, name: str, timeout: float) -> Connected | str:
    """Connect the ranks of a group over sockets and shared memory; every rank of the group calls it.

    Returns on all ranks alike what they have in common or, as a sentence, what keeps them from it. That a
    rank shares the memory is proved by what it reads there. Raises what torch.distributed raises where a
    rank does not come.
    """
    with ExitStack() as stack:
        attempt = _Attempt(cpu_group, name, Deadline(timeout), stack)
        for phase in (attempt.call, attempt.prove):
            obstacle = _first(cpu_group.all_gather_object(phase()))
            if obstacle is not None:
                return obstacle
        attempt.keep = True
        return Connected(attempt.segment, attempt.links)


class _Attempt:
    """One rank's part. Ranks call those after them, and answer those before them."""

    segment: Segment
    links: Links

    def __init__(self, group: OrderedGroup, name: str, deadline: Deadline, stack: ExitStack) -> None:
        self.keep = False
        self._rank, self._size = group.rank_in_group, group.world_size
        self._group, self._name, self._deadline = group, name, deadline
        self._made: dict[int, Link] = {}
        self._calls: dict[int, socket.socket] = {}
        self._descriptor: int | None = None
        self._own_process: int | None = None
        stack.callback(self._clear)
        own = self._invitation()
        self._invitations: Sequence[_Invitation] = group.all_gather_object(own)

    def call(self) -> str | None:
        """Call the ranks after this one. Their answers are not waited for: some may not come."""
        obstacle = _first([invitation.obstacle for invitation in self._invitations])
        if obstacle is not None:
            return obstacle
        try:
            self._own_process = _own_process()
            for peer in range(self._rank + 1, self._size):
                self._call(peer)
        except OSError as error:
            return f"rank {self._rank} cannot reach another rank's socket on this machine ({error})"
        return None

    def prove(self) -> str | None:
        """Answer the ranks before this one, take the answers of those after it, and read the token."""
        try:
            while any(peer not in self._made for peer in range(self._rank)):
                self._answer()
            for peer in range(self._rank + 1, self._size):
                self._take_answer(peer)
            assert self._descriptor is not None, "the first rank has passed it"
            self.segment = Segment(self._descriptor, self._size)
        except (OSError, ValueError) as error:
            self._clear()  # ranks that wait for this one's answer see that it hangs up
            return f"rank {self._rank} cannot map the memory of rank 0 ({error})"
        if self.segment.token != self._invitations[0].token:
            return f"rank {self._rank} reads another token in the memory than rank 0 has written there"
        segment = self.segment
        self.links = Links(
            self._made,
            rank=self._rank,
            has_completed=lambda rank, step: segment.completed(rank) >= step,
            group=self._name,
            global_ranks=self._group.ranks,
        )
        self._made, self._calls = {}, {}
        return None

    def _invitation(self) -> _Invitation:
        obstacle = local_obstacle()
        if obstacle is not None:
            return _Invitation(f"rank {self._rank}: {obstacle}")
        try:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # An abstract address: no file, and nobody beyond this network namespace can reach it.
            self._listener.bind(f"\0{ADDRESS}-{secrets.token_hex(16)}")
            self._listener.listen(2 * self._size)
            token = secrets.token_bytes(segments.TOKEN_SIZE)
            if self._rank == 0:
                self._descriptor = segments.create(self._size)
                Segment(self._descriptor, self._size).token = token
        except OSError as error:
            return _Invitation(f"rank {self._rank}: {error}")
        secret = secrets.token_bytes(_SECRET_SIZE)
        return _Invitation(None, self._listener.getsockname().decode(), secret, token)

    def _call(self, peer: int) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._calls[peer] = connection
        connection.settimeout(self._seconds())
        connection.connect(self._invitations[peer].address)
        gifts = [] if self._own_process is None else [self._own_process]
        if self._descriptor is not None:
            gifts.insert(0, self._descriptor)
        hello = self._invitations[peer].secret + self._rank.to_bytes(4, "little")
        socket.send_fds(connection, [hello], gifts)

    def _answer(self) -> None:
        """Take one call; strangers, who do not know the secret, are turned away."""
        self._listener.settimeout(self._seconds())
        connection, _ = self._listener.accept()
        connection.settimeout(self._seconds())
        data, descriptors, _, _ = socket.recv_fds(connection, _HELLO_SIZE, 2)
        if data[:_SECRET_SIZE] != self._invitations[self._rank].secret:
            connection.close()
            _close(descriptors)
            return
        caller = int.from_bytes(data[_SECRET_SIZE:], "little")
        if caller == 0:
            self._descriptor = descriptors.pop(0)
        self._made[caller] = Link(connection, descriptors[0] if descriptors else None)
        gifts = [] if self._own_process is None else [self._own_process]
        socket.send_fds(connection, [b"!"], gifts)

    def _take_answer(self, peer: int) -> None:
        connection = self._calls[peer]
        connection.settimeout(self._seconds())
        data, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        if not data:
            raise OSError(f"rank {peer} has hung up")
        self._made[peer] = Link(connection, descriptors[0] if descriptors else None)

    def _seconds(self) -> float:
        """Return what is left; 0 would make a socket one that never waits."""
        return max(self._deadline.remaining(), 1e-3)

    def _clear(self) -> None:
        """Close all but what is kept; a second call does nothing."""
        if hasattr(self, "_listener"):
            self._listener.close()
        _close([one for one in (self._descriptor, self._own_process) if one is not None])
        for peer, connection in self._calls.items():
            if peer not in self._made:
                connection.close()
        for link in self._made.values():
            link.close()
        self._descriptor = self._own_process = None
        if not self.keep and hasattr(self, "links"):
            self.links.close()


def local_obstacle() -> str | None:
    """Say what keeps this process from sharing memory with others; None where nothing does."""
    wanted = shared_memory_is_wanted()
    if wanted is False:
        return "VDIST_SHARED_MEMORY is 0"
    if wanted is None and platform.machine() not in _HAS_RUN_ON:
        return (
            f"shared memory has not run on {platform.machine() or 'this CPU'}, only on "
            f"{', '.join(sorted(_HAS_RUN_ON))}: set VDIST_SHARED_MEMORY=1 to use it all the same"
        )
    if not hasattr(os, "memfd_create") or not hasattr(socket, "send_fds"):
        return f"{sys.platform} has no memory without a name (memfd_create)"
    return None


def _own_process() -> int | None:
    """Return a descriptor that tells its holders when this process ends; None before Linux 5.3."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(os.getpid())
    except OSError:
        return None


def _first(obstacles: Sequence[str | None]) -> str | None:
    return next((obstacle for obstacle in obstacles if obstacle is not None), None)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
