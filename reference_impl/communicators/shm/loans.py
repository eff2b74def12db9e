"""Memory that the sender of a large message lends to its receiver for as long as the tensors in it live.

The sender copies, the receiver does not: its tensors lie where the sender wrote them. Memory that has come
back is used again, as its pages are there already.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

MOST_LOANS = 16  # each takes a descriptor in both processes
MOST_LENT = 512 << 20
MOST_IDLE = 320 << 20
_GRAIN = 2 << 20


@dataclass(frozen=True)
class Loan:
    """A piece of memory of the sender, which both sides know by `number`."""

    number: int
    size: int
    memory: torch.Tensor


class Lender:
    """The sender's side: what is out with one receiver, and what has come back."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._out: dict[int, Loan] = {}
        self._idle: list[Loan] = []

    def take_back(self, returned: Iterable[tuple[int, bool]]) -> None:
        """Take back (number, whether the receiver keeps it mapped); what it does not keep goes."""
        for number, is_kept in returned:
            loan = self._out.pop(number)
            if is_kept:
                self._idle.append(loan)

    def lend_again(self, size: int) -> Loan | None:
        """Lend what has come back, if that fits well."""
        fitting = [loan for loan in self._idle if size <= loan.size <= max(2 * size, _GRAIN)]
        if not fitting:
            return None
        loan = min(fitting, key=lambda each: each.size)
        self._idle.remove(loan)
        self._out[loan.number] = loan
        return loan

    @torch.inference_mode(mode=False)  # memory that is kept is also written to outside of that mode
    def lend_new(self, size: int) -> tuple[Loan, int] | None:
        """Lend new memory, with its descriptor, which is the caller's to close; None where too much is out.

        Raises OSError where the machine gives no memory or descriptor.
        """
        size = -(-size // _GRAIN) * _GRAIN
        if len(self._out) >= MOST_LOANS or sum(loan.size for loan in self._out.values()) + size > MOST_LENT:
            return None
        descriptor = os.memfd_create("vdist-loan", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, size)
            memory = mmap.mmap(descriptor, size)
        except (OSError, ValueError):
            os.close(descriptor)
            raise
        loan = Loan(next(self._numbers), size, torch.frombuffer(memory, dtype=torch.uint8))
        self._out[loan.number] = loan
        return loan, descriptor

    def forget_idle(self) -> list[int]:
        """Let all go that has come back, as its sizes fit no longer, and return its numbers."""
        numbers = [loan.number for loan in self._idle]
        self._idle.clear()
        return numbers


class Borrower:
    """The receiver's side: what it has mapped of one sender's memory."""

    def __init__(self, give_back: Callable[[int, bool], None]) -> None:
        """`give_back(number, whether it stays mapped)` must not wait: it is called where a tensor ends."""
        self._give_back = give_back
        self._mapped: dict[int, mmap.mmap] = {}
        self._idle: dict[int, int] = {}
        self._process = os.getpid()

    def map(self, number: int, descriptor: int) -> None:
        """Map new memory; the descriptor stays the caller's to close. Raises OSError."""
        self._mapped[number] = mmap.mmap(descriptor, os.fstat(descriptor).st_size)

    def forget(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._mapped.pop(number, None)
            self._idle.pop(number, None)

    def borrow(self, number: int) -> Borrowed:
        """Take a loan, which goes back when nothing of it is used any more."""
        self._idle.pop(number, None)
        memory = self._mapped[number]
        borrowed = Borrowed(memory)
        weakref.finalize(borrowed.owner, self._returned, number, len(memory)).atexit = False
        return borrowed

    def close(self) -> None:
        """Forget all; what tensors still use stays until they end."""
        self._mapped.clear()
        self._idle.clear()

    def _returned(self, number: int, size: int) -> None:
        if os.getpid() != self._process:  # the child of a fork: its parent goes on using the memory
            return
        is_kept = number in self._mapped and sum(list(self._idle.values())) + size <= MOST_IDLE
        if is_kept:
            self._idle[number] = size
        else:
            self._mapped.pop(number, None)
        self._give_back(number, is_kept)


class Borrowed:
    """One loan in use. Tensors made of it have storages of their own, and keep the loan."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.owner = (ctypes.c_char * len(memory)).from_buffer(memory)

    def tensor(self, start: int, size: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
        """Return `size` bytes from `start` as a 1-D tensor; `start` is a multiple of the dtype's size."""
        raw = torch.frombuffer(self.owner, dtype=torch.uint8, count=size, offset=start)
        return raw.view(dtype)


class Returns:
    """Words of loans that go back, sent at once where the socket takes them, else with the next message."""

    def __init__(self, send: Callable[[int, bool], bool]) -> None:
        """`send` returns False where it would have to wait."""
        self._send = send
        self._waiting: deque[tuple[int, bool]] = deque()

    def add(self, number: int, is_kept: bool) -> None:
        self._waiting.append((number, is_kept))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as that needs no wait."""
        while True:
            try:
                number, is_kept = self._waiting.popleft()
            except IndexError:
                return
            if not self._send(number, is_kept):
                self._waiting.appendleft((number, is_kept))
                return
