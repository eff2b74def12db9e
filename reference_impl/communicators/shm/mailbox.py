"""Tensor dicts from one rank to another: large ones in memory that is lent, others through an arena."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...objects import dump, load  # noqa: TID252
from ...tensor_dict import Slicing, TensorDict, TensorMetadata, places, split  # noqa: TID252
from ...wire import as_wire  # noqa: TID252
from .arena import ALIGNMENT, Outbox, map_arena
from .labels import Labels
from .links import Deadline, Links
from .loans import Borrowed, Borrower, Lender, Returns
from .records import Kind, Record

SMALLEST_LOAN = 512 << 10
# A smaller tensor is copied out of a loan: who keeps it should not keep all that came with it.
_SMALLEST_BORROWED = 64 << 10
_IN_LOAN = frozenset({Kind.MESSAGE_IN_LOAN, Kind.MESSAGE_IN_NEW_LOAN})


@dataclass(frozen=True)
class _Message:
    """The bytes of a dictionary: its metadata, then its tensors, and where each begins."""

    parts: Sequence[torch.Tensor]
    starts: Sequence[int]
    size: int

    def write(self, memory: torch.Tensor) -> None:
        for start, part in zip(self.starts, self.parts, strict=True):
            memory[start : start + part.numel()].copy_(part)


class Mailbox:
    """The tensor dicts of one rank of a group; each wait ends after `timeout` seconds with an error."""

    def __init__(self, links: Links, timeout: float, labels: Labels) -> None:
        self._links = links
        self._labels = labels
        self._timeout = timeout
        self._outboxes: dict[int, Outbox] = {}
        self._inboxes: dict[int, torch.Tensor] = {}
        self._lenders: dict[int, Lender] = {}
        self._borrowers: dict[int, tuple[Borrower, Returns]] = {}
        self._lock = threading.Lock()

    def send(self, tensor_dict: TensorDict, dst: int) -> bool:
        """Copy a dictionary to where `dst` finds it, and return True.

        Returns False where there is no room: nothing is sent then but word of it. Raises TypeError, with
        nothing sent, for what does not pickle; RuntimeError where `dst` is gone.
        """
        message = _message(tensor_dict)
        with self._labels.send(dst), self._lock:
            if message.size >= SMALLEST_LOAN and self._sent_in_loan(message, dst):
                return True
            if self._sent_in_arena(message, dst):
                return True
            self._tell(dst, Record(Kind.MESSAGE_ELSEWHERE))
            return False

    def receive(self, src: int) -> TensorDict | None:
        """Wait for a dictionary from `src`, all of it fresh; None where it comes over torch.distributed.

        Raises RuntimeError where `src` is gone or sends nothing in time.
        """
        with self._labels.recv(src):
            record, descriptor = self._links.message(src, Deadline(self._timeout))
        if record.kind is Kind.MESSAGE_ELSEWHERE:
            return None
        if record.kind in _IN_LOAN:
            return self._received_in_loan(record, descriptor, src)
        return self._received_in_arena(record, descriptor, src)

    def close(self) -> None:
        """Let go of all memory. What received tensors use stays until they end."""
        for outbox in self._outboxes.values():
            outbox.close()
        for borrower, _ in self._borrowers.values():
            borrower.close()
        for each in (self._outboxes, self._inboxes, self._lenders, self._borrowers):
            each.clear()

    # ---- loans ----

    def _sent_in_loan(self, message: _Message, dst: int) -> bool:
        lender = self._lenders.setdefault(dst, Lender())
        returned = self._links.take_returned(dst)
        lender.take_back((record.number, record.kind is Kind.RETURNED) for record in returned)
        loan, descriptors = lender.lend_again(message.size), []
        if loan is None:
            for number in lender.forget_idle():
                self._tell(dst, Record(Kind.FORGOTTEN, number=number))
            try:
                new = lender.lend_new(message.size)
            except OSError:
                return False
            if new is None:
                return False
            loan, descriptor = new
            descriptors = [descriptor]
        kind = Kind.MESSAGE_IN_NEW_LOAN if descriptors else Kind.MESSAGE_IN_LOAN
        try:
            message.write(loan.memory)
            record = Record(kind, number=loan.number, size=message.parts[0].numel())
            self._tell(dst, record, descriptors)
        except BaseException:
            lender.take_back([(loan.number, False)])
            raise
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _received_in_loan(self, record: Record, descriptor: int | None, src: int) -> TensorDict:
        borrower, returns = self._borrower(src)
        borrower.forget(self._links.take_forgotten(src))
        if descriptor is not None:
            borrower.map(record.number, descriptor)
            os.close(descriptor)
        returns.flush()
        borrowed = borrower.borrow(record.number)
        tensor_dict: TensorDict = load(borrowed.tensor(0, record.size))
        found = list(places(tensor_dict))
        starts, _ = _layout([record.size, *(_bytes(each) for _, _, each in found)])
        for (container, key, metadata), start in zip(found, starts[1:], strict=True):
            container[key] = _tensor(borrowed, start, metadata)
        return tensor_dict

    def _borrower(self, src: int) -> tuple[Borrower, Returns]:
        if src not in self._borrowers:
            links = self._links

            def give_back(number: int, is_kept: bool) -> bool:
                kind = Kind.RETURNED if is_kept else Kind.RETURNED_AND_FORGOTTEN
                return links.send_at_once(src, Record(kind, number=number))

            returns = Returns(give_back)
            self._borrowers[src] = Borrower(returns.add), returns
        return self._borrowers[src]

    # ---- arenas ----

    def _sent_in_arena(self, message: _Message, dst: int) -> bool:
        outbox = self._outbox(dst)
        place = None if outbox is None else outbox.place(message.size)
        if outbox is None or place is None:
            return False
        message.write(outbox.piece(place, message.size))
        kind = Kind.MESSAGE if outbox.descriptor is None else Kind.MESSAGE_IN_NEW_ARENA
        descriptors = [] if outbox.descriptor is None else [outbox.descriptor]
        self._tell(dst, Record(kind, number=place, size=message.parts[0].numel()), descriptors)
        outbox.close()
        return True

    def _received_in_arena(self, record: Record, descriptor: int | None, src: int) -> TensorDict:
        if descriptor is not None:
            self._inboxes[src] = map_arena(descriptor)
            os.close(descriptor)
        piece = self._inboxes[src][record.number :]
        tensor_dict: TensorDict = load(piece[: record.size])
        found = list(places(tensor_dict))
        starts, _ = _layout([record.size, *(_bytes(each) for _, _, each in found)])
        for (container, key, metadata), start in zip(found, starts[1:], strict=True):
            buffer = torch.empty(metadata.shape, dtype=metadata.dtype, device="cpu")
            as_wire(buffer).view(torch.uint8).copy_(piece[start : start + _bytes(metadata)])
            container[key] = buffer
        self._links.release(src)
        return tensor_dict

    def _outbox(self, dst: int) -> Outbox | None:
        """Return the arena for messages to `dst`; None where the machine gives no memory for it."""
        outbox = self._outboxes.get(dst)
        if outbox is None:
            try:
                outbox = self._outboxes[dst] = Outbox()
            except OSError:
                return None
        outbox.ring.give_back(self._links.take_released(dst))
        return outbox

    def _tell(self, dst: int, record: Record, descriptors: Sequence[int] = ()) -> None:
        self._links.send_message(dst, record, descriptors, Deadline(self._timeout))


def _message(tensor_dict: TensorDict) -> _Message:
    skeleton, described = split(tensor_dict, "cpu", Slicing())
    parts = [dump(skeleton), *(as_wire(tensor).view(torch.uint8) for _, tensor in described)]
    return _Message(parts, *_layout([part.numel() for part in parts]))


def _bytes(metadata: TensorMetadata) -> int:
    return metadata.numel * metadata.dtype.itemsize


def _tensor(borrowed: Borrowed, start: int, metadata: TensorMetadata) -> torch.Tensor:
    """Return a tensor of a message, where it lies or, if it is small, in memory of its own."""
    size = _bytes(metadata)
    if not size:
        return torch.empty(metadata.shape, dtype=metadata.dtype, device="cpu")
    tensor = borrowed.tensor(start, size, metadata.dtype).view(metadata.shape)
    return tensor if size >= _SMALLEST_BORROWED else tensor.clone()


def _layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return where parts of these sizes begin, one after the other, and the bytes they take in all."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return starts, max(end, ALIGNMENT)
