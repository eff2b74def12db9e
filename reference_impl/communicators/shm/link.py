"""One peer of a rank: its socket, its process, and the records that came from it."""

from __future__ import annotations

import os
import socket
import weakref
from collections import deque
from contextlib import suppress

from .records import RECORD_SIZE, Kind, Record, unpack

_READ_SIZE = 64 * RECORD_SIZE
_MOST_DESCRIPTORS = 8
_WITH_DESCRIPTOR = frozenset({Kind.MESSAGE_IN_NEW_ARENA, Kind.MESSAGE_IN_NEW_LOAN})


class Link:
    """One peer: its socket, what came from it and was not asked for yet, and its process."""

    def __init__(self, connection: socket.socket, process: int | None) -> None:
        self.connection = connection
        self.process = process
        self.arrivals: deque[Record] = deque()
        self.messages: deque[tuple[Record, int | None]] = deque()
        self.released = 0
        self.returned: deque[Record] = deque()
        self.forgotten: deque[Record] = deque()
        self.failure: Record | None = None
        self.at_end = False
        self._unread = b""
        self._descriptors: deque[int] = deque()
        # A link that nobody refers to any more closes itself: descriptors are numbers, which do not.
        self._close = weakref.finalize(
            self, _close_link, connection, process, self.messages, self._descriptors, os.getpid()
        )

    def read(self) -> None:
        """Take in all that has come, without waiting."""
        while not self.at_end:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.connection, _READ_SIZE, _MOST_DESCRIPTORS)
            except BlockingIOError:
                return
            except OSError:
                self.at_end = True
                return
            self._descriptors.extend(descriptors)
            self.at_end = not data
            self._take(data)
            if len(data) < _READ_SIZE and not descriptors:
                return

    def close(self) -> None:
        """Close all, which the peer sees; a second call does nothing."""
        self._close()

    def _take(self, data: bytes) -> None:
        self._unread += data
        whole = len(self._unread) // RECORD_SIZE * RECORD_SIZE
        for start in range(0, whole, RECORD_SIZE):
            record = unpack(self._unread[start : start + RECORD_SIZE])
            if record.kind is Kind.ARRIVED:
                self.arrivals.append(record)
            elif record.kind is Kind.RELEASED:
                self.released += 1
            elif record.kind in {Kind.RETURNED, Kind.RETURNED_AND_FORGOTTEN}:
                self.returned.append(record)
            elif record.kind is Kind.FORGOTTEN:
                self.forgotten.append(record)
            elif record.kind is Kind.FAILED:
                self.failure = self.failure or record
            else:
                comes_with_one = record.kind in _WITH_DESCRIPTOR
                self.messages.append((record, self._descriptors.popleft() if comes_with_one else None))
        self._unread = self._unread[whole:]


def _close_link(
    connection: socket.socket,
    process: int | None,
    messages: deque[tuple[Record, int | None]],
    descriptors: deque[int],
    owner: int,
) -> None:
    if os.getpid() == owner:  # in the child of a fork, the connection goes on being its parent's
        with suppress(OSError):  # the peer may have ended it first
            connection.shutdown(socket.SHUT_RDWR)
    connection.close()
    for descriptor in (process, *descriptors, *(one for _, one in messages)):
        if descriptor is not None:
            os.close(descriptor)
