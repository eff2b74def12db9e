"""Where the messages of one rank to another lie until they are read: a ring in memory of their own."""

from __future__ import annotations

import mmap
import os
import weakref
from collections import deque

import torch

ARENA_SIZE = 64 << 20
MOST_MESSAGES = 64
ALIGNMENT = 64


class Ring:
    """Hands out pieces of `size` bytes that are given back in the same order."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._head = 0
        self._pieces: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._pieces)

    def take(self, size: int) -> int | None:
        """Return where a piece begins; None where there is no room for it in one piece."""
        start = self._start(size)
        if start is not None:
            self._head = start + size
            self._pieces.append((start, size))
        return start

    def give_back(self, count: int) -> None:
        """Give the `count` oldest pieces back."""
        for _ in range(count):
            self._pieces.popleft()

    def _start(self, size: int) -> int | None:
        if not self._pieces:
            return 0 if size <= self._size else None  # from the start: memory that was used before
        tail = self._pieces[0][0]
        if self._head > tail:
            if size <= self._size - self._head:
                return self._head
            return 0 if size <= tail else None
        return self._head if size <= tail - self._head else None


class Outbox:
    """The sender's side of an arena. Pages that no message has used take no memory."""

    def __init__(self) -> None:
        """Make the arena. Raises OSError where the machine gives no memory or descriptor."""
        descriptor = os.memfd_create("vdist-messages", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, ARENA_SIZE)
        self.descriptor: int | None = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)
        self._memory = map_arena(descriptor)
        self.ring = Ring(ARENA_SIZE)

    def place(self, size: int) -> int | None:
        """Return where a message of `size` bytes can lie; None where it must go another way."""
        return None if len(self.ring) >= MOST_MESSAGES else self.ring.take(size)

    def piece(self, start: int, size: int) -> torch.Tensor:
        return self._memory[start : start + size]

    def close(self) -> None:
        """Close the descriptor, which the receiver has a copy of; the memory stays mapped."""
        self._close()
        self.descriptor = None


@torch.inference_mode(mode=False)  # memory that is kept is also written to outside of that mode
def map_arena(descriptor: int) -> torch.Tensor:
    """Map an arena as bytes; the descriptor stays the caller's to close."""
    return torch.frombuffer(mmap.mmap(descriptor, ARENA_SIZE), dtype=torch.uint8)
