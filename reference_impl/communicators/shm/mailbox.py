"""Tensor dicts from one rank to another: written into the sender's arena, read out of it by the receiver."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ...objects import dump, load  # noqa: TID252
from ...tensor_dict import Slicing, TensorDict, places, split  # noqa: TID252
from ...wire import as_wire  # noqa: TID252
from .arena import ALIGNMENT, Outbox, map_arena
from .links import Deadline, Links
from .records import Kind, Operation, Record

STRETCH = 2 << 20  # bytes that sender and receiver copy at a time


class Mailbox:
    """The tensor dicts of one rank of a group; each wait ends after `timeout` seconds with an error."""

    def __init__(self, links: Links, timeout: float) -> None:
        self._links = links
        self._timeout = timeout
        self._outboxes: dict[int, Outbox] = {}
        self._inboxes: dict[int, torch.Tensor] = {}
        self._lock = threading.Lock()

    def send(self, tensor_dict: TensorDict, dst: int) -> bool:
        """Copy a dictionary to where `dst` finds it, and return True.

        Returns False where there is no room: nothing is sent then but word of it. Raises TypeError, with
        nothing sent, for what does not pickle; RuntimeError where `dst` is gone.
        """
        skeleton, described = split(tensor_dict, "cpu", Slicing())
        parts = [dump(skeleton), *(as_wire(tensor).view(torch.uint8) for _, tensor in described)]
        starts, size = _layout([part.numel() for part in parts])
        with self._lock:
            outbox = self._outbox(dst)
            place = None if outbox is None else outbox.place(size)
            if outbox is None or place is None:
                self._links.send_message(dst, Record(Kind.MESSAGE_ELSEWHERE), (), Deadline(self._timeout))
                return False
            piece = outbox.piece(place, size)
            if size <= STRETCH:
                for start, part in zip(starts, parts, strict=True):
                    piece[start : start + part.numel()].copy_(part)
                self._announce(outbox, dst, place, parts[0].numel())
            else:
                piece[: parts[0].numel()].copy_(parts[0])
                with self._whole_message():
                    self._announce(outbox, dst, place, parts[0].numel())
                    self._write(piece, starts[1:], parts[1:], dst)
        return True

    def receive(self, src: int) -> TensorDict | None:
        """Wait for a dictionary from `src`, all of it fresh; None where it comes over torch.distributed.

        Raises RuntimeError where `src` is gone or sends nothing in time.
        """
        record, descriptor = self._links.message(src, Deadline(self._timeout))
        if descriptor is not None:
            self._inboxes[src] = map_arena(descriptor)
            os.close(descriptor)
        if record.kind is Kind.MESSAGE_ELSEWHERE:
            return None
        piece = self._inboxes[src][record.number :]
        tensor_dict: TensorDict = load(piece[: record.size])
        found = list(places(tensor_dict))
        buffers = [torch.empty(each.shape, dtype=each.dtype, device="cpu") for _, _, each in found]
        parts = [as_wire(buffer).view(torch.uint8) for buffer in buffers]
        starts, size = _layout([record.size, *(part.numel() for part in parts)])
        with self._whole_message():
            written = size if size <= STRETCH else 0
            for begin, target in _stretches(starts[1:], parts):
                while written < begin + target.numel():
                    written = self._written(src)
                target.copy_(piece[begin : begin + target.numel()])
            while written < size:
                written = self._written(src)
        self._links.release(src)
        for (container, key, _), buffer in zip(found, buffers, strict=True):
            container[key] = buffer
        return tensor_dict

    def close(self) -> None:
        for outbox in self._outboxes.values():
            outbox.close()
        self._outboxes.clear()
        self._inboxes.clear()

    def _write(
        self, piece: torch.Tensor, starts: Sequence[int], parts: Sequence[torch.Tensor], dst: int
    ) -> None:
        """Write a large message, and tell `dst` now and then how far it is, so that both copy at once."""
        told = 0
        for begin, source in _stretches(starts, parts):
            end = begin + source.numel()
            piece[begin:end].copy_(source)
            if end - told >= STRETCH:
                told = end
                self._tell_written(dst, end)
        if told < piece.numel():  # the receiver takes words up to the end, and none beyond
            self._tell_written(dst, piece.numel())

    def _tell_written(self, dst: int, end: int) -> None:
        self._links.send_message(dst, Record(Kind.WRITTEN, number=end), (), Deadline(self._timeout))

    def _written(self, src: int) -> int:
        record, _ = self._links.message(src, Deadline(self._timeout))
        if record.kind is not Kind.WRITTEN:
            raise RuntimeError(f"rank {src} of the group broke a message off")
        return record.number

    @contextmanager
    def _whole_message(self) -> Iterator[None]:
        """End the group where a message is broken off: what comes after it would be taken for its rest."""
        try:
            yield
        except BaseException as error:
            if self._links.broken is None:
                text = f"this rank broke a message off: {error}"
                self._links.break_off(Operation.INTERRUPTED, self._links.rank, text)
            raise

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

    def _announce(self, outbox: Outbox, dst: int, place: int, metadata_size: int) -> None:
        """Tell `dst` where a message lies, the first time with the descriptor of the arena."""
        new = outbox.descriptor is not None
        kind = Kind.MESSAGE_IN_NEW_ARENA if new else Kind.MESSAGE
        descriptors = [outbox.descriptor] if outbox.descriptor is not None else []
        record = Record(kind, number=place, size=metadata_size)
        self._links.send_message(dst, record, descriptors, Deadline(self._timeout))
        outbox.close()


def _stretches(starts: Sequence[int], parts: Sequence[torch.Tensor]) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (place, bytes) of the parts, large ones in stretches."""
    for start, part in zip(starts, parts, strict=True):
        for begin in range(0, part.numel(), STRETCH):
            yield start + begin, part[begin : begin + STRETCH]


def _layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return where parts of these sizes begin, one after the other, and the bytes they take in all."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return starts, max(end, ALIGNMENT)
