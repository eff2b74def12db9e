"""Devices are used by one session at a time: leases across all processes of this machine.

A lease is a bound socket in Linux's abstract namespace: whoever can bind the slot's name has it, and the
kernel takes it back when the holder ends, however it ends. Nothing is on disk. Who waits is connected to the
holder and notices the end of the connection. One waiter at a time collects slots: the others queue behind it
in order, so a run that needs all devices is not starved by runs that need a few.

Runs that may share have the name of a share of the slot. Only who collects takes anything, so it can look at
the shares of a slot before it takes all of it, and at the whole and the shares before it takes one.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from multiprocess.connection import wait

from pytest_vdist.backends.sharing import MAX_RUNS_PER_DEVICE

_QUEUE_LENGTH = 128
_RETRY = 0.01  # a holder's queue is full, or it has just gone: rare, and nothing to wait on


class LeaseTimeoutError(Exception):
    """Raised when the devices of a run did not become free in time."""


class DeviceLeases:
    """The slots of one kind of device, shared by all sessions of this user on this machine."""

    def __init__(self, kind: str, slots: Sequence[str], runs_per_slot: int = 1) -> None:
        """Take nothing yet. A run joins up to `runs_per_slot` - 1 others in a slot; 0: nobody ever shares."""
        self._kind = kind
        self._runs_per_slot = runs_per_slot
        self._slots = tuple(slots)
        self._prefix = f"\0pytest-vdist/{os.getuid()}/{kind}/"

    @property
    def slots(self) -> tuple[str, ...]:
        return self._slots

    @contextmanager
    def hold(
        self,
        count: int,
        *,
        timeout: float,
        among: Sequence[str] | None = None,
        preferred: Sequence[Sequence[str]] = (),
    ) -> Iterator[tuple[str, ...]]:
        """Hold `count` slots, in the order of `slots`, while the context is open.

        `among` are those that will do, by default all. A set of `preferred` is taken first; of these, as of
        all slots, what fewer runs share comes before the rest. Raises LeaseTimeoutError, naming the processes
        that hold slots, after `timeout` seconds, and ValueError if there are not so many slots.
        """
        candidates = self._slots if among is None else tuple(among)
        if count > len(candidates):
            raise ValueError(f"{count} slots of {self._kind} were asked for, there are {len(candidates)}")
        deadline = time.monotonic() + timeout
        turnstile = self._enter(deadline)
        try:
            held = self._collect(count, candidates, preferred, deadline)
        finally:
            _pass_on(turnstile)
        try:
            yield tuple(slot for slot in self._slots if slot in held)
        finally:
            _let_go(held)

    def _enter(self, deadline: float) -> socket.socket:
        """Become the one that collects; wait in the queue of the one who does."""
        while True:
            turnstile = _bind(self._prefix + "turnstile")
            if turnstile is not None:
                return turnstile
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
                if not _connected({self._prefix + "turnstile": waiting}):
                    self._pause(deadline, [])
                    continue
                self._wait([waiting], deadline)
                received = _receive_socket(waiting)
            if received is not None:
                return received

    def _collect(
        self, count: int, candidates: Sequence[str], preferred: Sequence[Sequence[str]], deadline: float
    ) -> dict[str, socket.socket]:
        sets = [slots for slots in preferred if len(slots) == count]
        held = next(filter(None, map(self._take_set, self._emptiest_first(sets))), {})
        try:
            self._take_more(held, count, candidates)
            while len(held) < count:
                with self._watching([slot for slot in candidates if slot not in held]) as watched:
                    self._take_more(held, count, candidates)  # what became free before it was watched
                    if len(held) < count and watched:
                        self._wait(watched, deadline)
                    elif len(held) < count:
                        self._pause(deadline, watched)
        except BaseException:
            _let_go(held)
            raise
        return held

    def _take_more(self, held: dict[str, socket.socket], count: int, candidates: Sequence[str]) -> None:
        others = [(slot,) for slot in candidates if slot not in held]
        for (slot,) in self._emptiest_first(others) if len(held) + len(others) > count else others:
            taken = self._take(slot) if len(held) < count else None
            if taken is not None:
                held[slot] = taken

    def _emptiest_first(self, sets: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
        """Order sets of slots by how many runs share the fullest slot of each."""
        if self._runs_per_slot <= 1 or len(sets) <= 1:
            return sets
        return sorted(sets, key=lambda slots: max(len(_bound(self._shares(slot))) for slot in slots))

    def _take_set(self, slots: Sequence[str]) -> dict[str, socket.socket]:
        """Take exactly these, or none."""
        held: dict[str, socket.socket] = {}
        self._take_more(held, len(slots), slots)
        if len(held) < len(slots):
            _let_go(held)
            return {}
        return held

    def _take(self, slot: str) -> socket.socket | None:
        """Take a slot, or a share of it, unless it is taken in the other way or shared by enough."""
        whole, shares = self._prefix + slot, self._shares(slot)
        taken = _bound(shares)
        if self._runs_per_slot <= 1:
            return None if taken else _bind(whole)
        if len(taken) >= self._runs_per_slot or _bound([whole]):
            return None
        return _bind(next(share for share in shares if share not in taken))

    def _shares(self, slot: str) -> list[str]:
        most = MAX_RUNS_PER_DEVICE if self._runs_per_slot else 0
        return [f"{self._prefix}{slot}/{number}" for number in range(most)]

    @contextmanager
    def _watching(self, slots: Sequence[str]) -> Iterator[list[socket.socket]]:
        """Be connected, while the context is open, to everybody who has a slot or a share of it."""
        names = [name for slot in slots for name in (self._prefix + slot, *self._shares(slot))]
        sockets = {name: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for name in names}
        try:
            yield _connected(sockets)
        finally:
            _let_go(sockets)

    def _wait(self, waiting: Sequence[socket.socket], deadline: float) -> None:
        if not wait(list(waiting), max(0.0, deadline - time.monotonic())):
            raise LeaseTimeoutError(self._timeout_text(waiting))

    def _pause(self, deadline: float, waiting: Sequence[socket.socket]) -> None:
        if time.monotonic() > deadline:
            raise LeaseTimeoutError(self._timeout_text(waiting))
        wait([], _RETRY)

    def _timeout_text(self, waiting: Sequence[socket.socket]) -> str:
        holders = sorted({pid for each in waiting if (pid := _peer(each))})
        by = f"; they are held by {', '.join(_process_text(pid) for pid in holders)}" if holders else ""
        return (
            f"not enough of the {len(self._slots)} devices of {self._kind} became free in time{by}; "
            "end the other session, or run fewer at once"
        )


def _bind(name: str) -> socket.socket | None:
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        holder.bind(name)
    except OSError:  # somebody has it
        holder.close()
        return None
    holder.listen(_QUEUE_LENGTH)
    return holder


def _bound(names: Sequence[str]) -> list[str]:
    """Return those of the names that somebody has. To connect to them would make their queues longer."""
    found = []
    for name in names:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            try:
                asking.bind(name)
            except OSError:
                found.append(name)
    return found


def _let_go(sockets: Mapping[str, socket.socket]) -> None:
    for each in sockets.values():
        each.close()


def _connected(sockets: Mapping[str, socket.socket]) -> list[socket.socket]:
    """Connect to the names that somebody has, and return the sockets of those.

    None where a queue is full: to wait for the others alone may be to wait for the wrong ones.
    """
    connected = []
    for name, each in sockets.items():
        each.setblocking(False)
        try:
            each.connect(name)
        except ConnectionRefusedError:
            continue
        except BlockingIOError:
            return []
        connected.append(each)
    return connected


def _pass_on(turnstile: socket.socket) -> None:
    """Hand the turnstile, with its queue, to the first that waits; without any, let it go."""
    turnstile.setblocking(False)
    with turnstile:
        while True:
            try:
                first, _ = turnstile.accept()
            except BlockingIOError:
                return
            with first:
                try:
                    socket.send_fds(first, [b"t"], [turnstile.fileno()])
                except OSError:  # that one has given up
                    continue
                return


def _receive_socket(waiting: socket.socket) -> socket.socket | None:
    try:
        data, descriptors, _, _ = socket.recv_fds(waiting, 1, 1)
    except OSError:  # the holder has gone without passing it on
        return None
    return socket.socket(fileno=descriptors[0]) if data and descriptors else None


def _peer(waiting: socket.socket) -> int:
    try:
        credentials = waiting.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return 0
    return int(struct.unpack("3i", credentials)[0])


def _process_text(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as command:
            words = command.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        words = ""
    return f"process {pid} ({words[:80]})" if words else f"process {pid}"
