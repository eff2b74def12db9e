"""The sockets of one rank to the other ranks of its group: records, waits that end, and who is gone."""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from .link import Link
from .records import Kind, Operation, Record, pack

# Another thread may take the record that this one waits for off the socket, and put it where this one looks.
_LOOK_AGAIN = 0.02


class Deadline:
    """When a wait ends. Seconds; None never ends."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float:
        return math.inf if self._end is None else self._end - time.monotonic()


class Links:
    """The links of this rank to all others of its group, by rank within the group."""

    def __init__(
        self,
        links: Mapping[int, Link],
        *,
        rank: int,
        has_completed: Callable[[int, int], bool],
        group: str,
        global_ranks: Sequence[int],
    ) -> None:
        """Take over connected links. `has_completed(rank, step)` tells whether a rank is through a step."""
        self.rank = rank
        self.broken: str | None = None
        self._links = dict(links)
        self._has_completed = has_completed
        self._group = group
        self._global_ranks = list(global_ranks)
        self._lock = threading.RLock()
        self._gone: set[int] = set()
        self._watch = select.epoll()
        self._watched: dict[int, int] = {}
        for peer, link in self._links.items():
            link.connection.setblocking(False)
            self._watch.register(link.connection, select.EPOLLRDHUP)
            self._watched[link.connection.fileno()] = peer
            if link.process is not None:
                self._watch.register(link.process, select.EPOLLIN)
                self._watched[link.process] = peer

    # ---- collectives ----

    def arrive(self, peer: int, data: bytes, step: int, deadline: Deadline) -> None:
        """Tell `peer` that this rank has come to `step`. Raises RuntimeError as `arrival` does."""
        self._require_whole()
        if not self._send(peer, data, (), deadline):
            self._require_nobody_missing(step, peer)

    def arrival(self, peer: int, step: int, deadline: Deadline) -> Record:
        """Wait until `peer` comes to `step`.

        Raises RuntimeError, on all ranks that wait, where any rank of the group is gone before it was
        through this step, and at the deadline.
        """
        link = self._links[peer]
        while True:
            with self._lock:
                self._require_whole()
                if not link.arrivals:
                    link.read()
                if link.arrivals:
                    return link.arrivals.popleft()
                self._require_nobody_missing(step, peer if link.at_end else None)
            if not self._wait(link, deadline):
                self._give_up(peer, deadline)

    # ---- messages ----

    def send_message(self, peer: int, record: Record, descriptors: Sequence[int], deadline: Deadline) -> None:
        """Send a record to `peer`. Raises RuntimeError where it is gone."""
        self._require_whole()
        if not self._send(peer, pack(record), descriptors, deadline):
            raise RuntimeError(f"{self._name(peer)} is gone: its process ended, or it destroyed the group")

    def message(self, peer: int, deadline: Deadline) -> tuple[Record, int | None]:
        """Wait for a message from `peer`; the descriptor that came with it is the caller's to close.

        Raises RuntimeError where `peer` is gone, and at the deadline, after which the group is still whole.
        """
        link = self._links[peer]
        while True:
            with self._lock:
                self._require_whole()
                if not link.messages:
                    link.read()
                if not link.messages and self._is_gone(peer):
                    link.read()  # it may have sent a message just before it went
                if link.messages:
                    return link.messages.popleft()
                if self._is_gone(peer):
                    raise RuntimeError(
                        f"{self._name(peer)} is gone and has sent no message: its process ended, or it "
                        "destroyed the group"
                    )
            if not self._wait(link, deadline):
                raise RuntimeError(
                    f"timed out after {deadline.seconds:g} s waiting for a message from {self._name(peer)}"
                )

    def take_released(self, peer: int) -> int:
        """Return how many messages `peer` has read since the last call."""
        link = self._links[peer]
        with self._lock:
            link.read()
            released, link.released = link.released, 0
            return released

    def take_returned(self, peer: int) -> Iterator[Record]:
        """Yield the words of `peer` of memory that it has given back."""
        link = self._links[peer]
        with self._lock:
            link.read()
        while link.returned:
            yield link.returned.popleft()

    def take_forgotten(self, peer: int) -> Iterator[int]:
        """Yield the numbers of memory that `peer` uses no more."""
        forgotten = self._links[peer].forgotten
        while forgotten:
            yield forgotten.popleft().number

    def send_at_once(self, peer: int, record: Record) -> bool:
        """Send a record, or return False where that needs a wait; one that is gone need not know."""
        link = self._links.get(peer)
        try:
            if link is not None:
                link.connection.send(pack(record))
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def release(self, peer: int) -> None:
        """Tell `peer` that its oldest message has been read; one that is gone need not know."""
        self._send(peer, pack(Record(Kind.RELEASED)), (), Deadline(None))

    # ---- the end ----

    def break_off(self, reason: Operation, culprit: int, text: str) -> RuntimeError:
        """Give the group up, tell all others why, and return the error to raise."""
        with self._lock:
            self.broken = self.broken or text
            record = pack(Record(Kind.FAILED, reason, root=culprit))
            for peer, link in self._links.items():
                if peer not in self._gone:
                    with suppress(OSError):  # a peer that is gone, or whose socket is full, sees the end
                        link.connection.send(record)
                    with suppress(OSError):
                        link.connection.shutdown(socket.SHUT_RDWR)
            return RuntimeError(self.broken)

    def close(self) -> None:
        with self._lock:
            self.broken = self.broken or f"group {self._group!r} is destroyed: make a new coordinator"
            self._watch.close()
            for link in self._links.values():
                link.close()
            self._links.clear()

    # ---- helpers ----

    def _send(self, peer: int, data: bytes, descriptors: Sequence[int], deadline: Deadline) -> bool:
        """Send a record; False where nobody is left to receive it."""
        connection = self._links[peer].connection
        while True:
            try:
                if descriptors:
                    socket.send_fds(connection, [data], descriptors)
                else:
                    connection.send(data)
            except BlockingIOError:
                self._wait_for_space(peer, deadline)
            except OSError:
                return False
            else:
                return True

    def _wait_for_space(self, peer: int, deadline: Deadline) -> None:
        remaining = deadline.remaining()
        poll = select.poll()
        poll.register(self._links[peer].connection, select.POLLOUT)
        if remaining <= 0 or not poll.poll(None if remaining == math.inf else remaining * 1000):
            raise RuntimeError(
                f"timed out after {deadline.seconds:g} s: {self._name(peer)} does not take what it is sent"
            )

    def _wait(self, link: Link, deadline: Deadline) -> bool:
        """Wait until something may have come; False at the deadline."""
        remaining = deadline.remaining()
        if remaining <= 0:
            return False
        poll = select.poll()
        poll.register(link.connection, select.POLLIN)
        poll.register(self._watch, select.POLLIN)
        poll.poll(math.ceil(1000 * min(remaining, _LOOK_AGAIN)))
        return True

    def _is_gone(self, peer: int) -> bool:
        self._note_departures()
        return peer in self._gone or self._links[peer].at_end

    def _note_departures(self) -> None:
        """Put the peers whose connection or process has ended into `_gone`."""
        for descriptor, _ in self._watch.poll(0):
            self._watch.unregister(descriptor)
            self._gone.add(self._watched.pop(descriptor))

    def _require_nobody_missing(self, step: int, ended: int | None) -> None:
        """Break the group off if a peer is gone that was not through `step`; those that were may leave."""
        self._note_departures()
        if ended is not None:
            self._gone.add(ended)
        for peer in sorted(self._gone):
            if not self._has_completed(peer, step):
                raise self._departure(peer)

    def _departure(self, peer: int) -> RuntimeError:
        link = self._links[peer]
        link.read()
        told = link.failure
        if told is None:
            text = f"{self._name(peer)} is gone: its process ended, or it destroyed the group"
            return self.break_off(Operation.GONE, peer, text)
        return self.break_off(told.operation, told.root, self._reason(told, peer))

    def _reason(self, told: Record, peer: int) -> str:
        who = self._name(peer)
        culprit = "this rank" if told.root == self.rank else self._name(told.root)
        reasons = {
            Operation.GONE: f"{culprit} is gone, as {who} has noticed",
            Operation.TIMED_OUT: f"{who} gave up waiting for {culprit}",
            Operation.MISMATCH: f"{who} and {culprit} were in different collectives",
        }
        return reasons.get(told.operation, f"{who} was interrupted in a collective")

    def _give_up(self, peer: int, deadline: Deadline) -> None:
        raise self.break_off(
            Operation.TIMED_OUT,
            peer,
            f"timed out after {deadline.seconds:g} s waiting for {self._name(peer)} in a collective",
        )

    def _require_whole(self) -> None:
        if self.broken is not None:
            raise RuntimeError(self.broken)

    def _name(self, peer: int) -> str:
        return f"rank {peer} of group {self._group!r} (global rank {self._global_ranks[peer]})"
