"""Tensor dicts from one rank to another: written into the sender's arena, read out of it by the receiver."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import torch

from ...objects import dump, load  # noqa: TID252
from ...tensor_dict import Slicing, TensorDict, places, split  # noqa: TID252
from ...wire import as_wire  # noqa: TID252
from .arena import ALIGNMENT, Outbox, map_arena
from .links import Deadline, Links
from .records import Kind, Record


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
            for start, part in zip(starts, parts, strict=True):
                piece[start : start + part.numel()].copy_(part)
            self._announce(outbox, dst, place, parts[0].numel())
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
        starts, _ = _layout([record.size, *(part.numel() for part in parts)])
        for start, part in zip(starts[1:], parts, strict=True):
            part.copy_(piece[start : start + part.numel()])
        self._links.release(src)
        for (container, key, _), buffer in zip(found, buffers, strict=True):
            container[key] = buffer
        return tensor_dict

    def close(self) -> None:
        for outbox in self._outboxes.values():
            outbox.close()
        self._outboxes.clear()
        self._inboxes.clear()

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


def _layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return where parts of these sizes begin, one after the other, and the bytes they take in all."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return starts, max(end, ALIGNMENT)
