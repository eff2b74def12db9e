"""Collectives on flat tensors over shared memory, as `OrderedGroup` has them over torch.distributed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ...ordered_group import Members  # noqa: TID252
from ...wire import as_wire, from_wire, is_plain, write_back  # noqa: TID252
from .connect import Connected
from .labels import Labels
from .links import Deadline
from .records import Call, Operation, arrival

# Up to here every rank sums everything, which takes one step; beyond, each sums a part, which takes two.
_SUMMED_BY_ALL = 32 << 10
_HEADER = 8  # bytes of the number of bytes that are broadcast


class SharedMemory:
    """What the ranks of one group share, and the step at which this rank is."""

    def __init__(self, connected: Connected, rank: int, world_size: int) -> None:
        self.segment, self.links = connected.segment, connected.links
        self.rank, self.world_size = rank, world_size
        self._step = 0
        self._row = 0
        self._lock = threading.Lock()

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Let one thread at a time through. What ends a collective early ends the group: ranks are apart."""
        with self._lock:
            try:
                yield
            except BaseException as error:
                if self.links.broken is None:
                    self.links.break_off(
                        Operation.INTERRUPTED, self.rank, f"this rank left a collective: {error!r}"
                    )
                raise

    def next_slots(self, dtype: torch.dtype) -> torch.Tensor:
        """Return slots (world_size, elements) that nobody reads any more."""
        self._row ^= 1
        return self.segment.slots(self._row, dtype)

    def meet(self, call: Call, timeout: float) -> None:
        """Wait until every rank has come here; what each wrote before, all can read afterwards.

        In round k each rank tells the one 2^k places on (Hensgen, Finkel and Manber, "Two algorithms for
        barrier synchronization", 1988). Raises RuntimeError, on all ranks, where they are in different
        collectives, where one is gone, and after `timeout` seconds.
        """
        deadline = Deadline(timeout)
        step = self._step + 1
        told = arrival(call, step)
        distance = 1
        while distance < self.world_size:
            self.links.arrive((self.rank + distance) % self.world_size, told, step, deadline)
            peer = (self.rank - distance) % self.world_size
            record = self.links.arrival(peer, step, deadline)
            if record.number != step or record.call != call:
                raise self.links.break_off(
                    Operation.MISMATCH,
                    peer,
                    f"this rank is in {call}, rank {peer} of the group in {record.call}: every rank makes "
                    "the same calls in the same order",
                )
            distance *= 2
        self._step = step
        self.segment.complete(self.rank, step)


class SharedMembers:
    """Collectives on flat tensors of the CPU; each wait for other ranks ends after `timeout` seconds.

    Sums are taken in the order of the ranks, in the dtype of the tensors, so that every rank gets the same
    bits, whatever the size of the tensor is. Tensors larger than a slot go in chunks.
    """

    def __init__(self, shared: SharedMemory, timeout: float, messages: Members, labels: Labels) -> None:
        """`messages` carries what one rank sends to another; `labels` are of the group that is replaced."""
        self.world_size, self.rank_in_group = shared.world_size, shared.rank
        self._messages = messages
        self._shared = shared
        self._timeout = timeout
        self._labels = labels

    def barrier(self) -> None:
        call = Call(Operation.BARRIER)
        with self._collective(call):
            self._shared.meet(call, self._timeout)

    def all_reduce(self, flat: torch.Tensor) -> torch.Tensor:
        """Return the sum of every rank's contiguous 1-D `flat`."""
        total = flat.new_empty(flat.numel())  # not empty_like: it keeps any stride of one element
        call = _call(Operation.ALL_REDUCE, flat)
        reduce = self._sum_all if call.size <= _SUMMED_BY_ALL else self._sum_own_part
        with self._collective(call):
            for start, end in self._chunks(flat.numel(), self._slot(flat)):
                reduce(flat[start:end], total[start:end], call)
        return total

    def all_reduce_(self, tensor: torch.Tensor) -> None:
        """Sum a contiguous `tensor` over the group, in place."""
        flat = tensor.view(-1)
        flat.copy_(self.all_reduce(flat))

    def all_gather(self, flat: torch.Tensor) -> torch.Tensor:
        """Return every rank's 1-D `flat`, one after the other."""
        joined = flat.new_empty(self.world_size * flat.numel())
        self._gather(flat, joined, _call(Operation.ALL_GATHER, flat))
        return joined

    def gather(self, flat: torch.Tensor, dst: int) -> torch.Tensor | None:
        """Return every rank's 1-D `flat`, one after the other, at `dst`, and None elsewhere."""
        joined = flat.new_empty(self.world_size * flat.numel()) if self.rank_in_group == dst else None
        self._gather(flat, joined, _call(Operation.GATHER, flat, dst))
        return joined

    def reduce_scatter(self, flat: torch.Tensor) -> torch.Tensor:
        """Sum every rank's contiguous 1-D `flat` and return this rank's of world_size equal parts."""
        total = flat.new_empty(flat.numel() // self.world_size)
        rows = flat.view(self.world_size, total.numel())
        call = _call(Operation.REDUCE_SCATTER, flat)
        with self._collective(call):
            for start, end in self._chunks(total.numel(), self._slot(total) // self.world_size):
                self._sum_own_row(rows[:, start:end], total[start:end], call)
        return total

    def broadcast_(self, tensor: torch.Tensor, src: int) -> None:
        """Overwrite `tensor`, of any strides, with that of `src`."""
        flat = as_wire(tensor)
        call = _call(Operation.BROADCAST, flat, src)
        with self._collective(call):
            self._broadcast(flat, src, call)
        if self.rank_in_group != src and not is_plain(tensor):
            write_back(tensor, from_wire(flat, tensor.dtype, tensor.shape))

    def broadcast_bytes(self, data: torch.Tensor | None, src: int) -> torch.Tensor:
        """Return the bytes of `src`; they and their number come in one step where they fit in a slot."""
        call = Call(Operation.BROADCAST_OBJECT, root=src)
        with self._collective(call):
            slot = self._shared.next_slots(torch.uint8)[src]
            size, beginning = slot[:_HEADER].view(torch.int64), slot[_HEADER:]
            if data is not None and self.rank_in_group == src:
                size.fill_(data.numel())
                beginning[: data.numel()].copy_(data[: beginning.numel()])
            self._shared.meet(call, self._timeout)
            if data is None or self.rank_in_group != src:
                data = torch.empty(int(size), dtype=torch.uint8, device="cpu")
                data[: beginning.numel()].copy_(beginning[: data.numel()])
            self._broadcast(data[beginning.numel() :], src, call)
        return data

    def send(self, flat: torch.Tensor, dst: int) -> None:
        """Send a 1-D tensor; returns when the backend lets go of it."""
        self._messages.send(flat, dst)

    def recv_(self, flat: torch.Tensor, src: int) -> None:
        """Fill a 1-D contiguous tensor with a message of its size."""
        self._messages.recv_(flat, src)

    # ---- one chunk ----

    def _sum_all(self, flat: torch.Tensor, total: torch.Tensor, call: Call) -> None:
        slots = self._shared.next_slots(flat.dtype)[:, : flat.numel()]
        slots[self.rank_in_group].copy_(flat)
        self._shared.meet(call, self._timeout)
        _add_up(list(slots), total)

    def _sum_own_part(self, flat: torch.Tensor, total: torch.Tensor, call: Call) -> None:
        """Sum one part of the chunk, for all; the sum takes the place of this rank's input in its slot."""
        slots = self._shared.next_slots(flat.dtype)[:, : flat.numel()]
        part = -(-flat.numel() // self.world_size)
        inputs, outputs, totals = (list(torch.split(each, part, -1)) for each in (flat, slots, total))
        own = self.rank_in_group
        for rank, values in enumerate(inputs):
            if rank != own:
                outputs[rank][own].copy_(values)
        self._shared.meet(call, self._timeout)
        if own < len(inputs):
            terms = list(outputs[own])
            terms[own] = inputs[own]
            _add_up(terms, totals[own])
            outputs[own][own].copy_(totals[own])
        self._shared.meet(call, self._timeout)
        for rank, values in enumerate(totals):
            if rank != own:
                values.copy_(outputs[rank][rank])

    def _sum_own_row(self, rows: torch.Tensor, total: torch.Tensor, call: Call) -> None:
        own, length = self.rank_in_group, total.numel()
        slots = self._shared.next_slots(rows.dtype)[:, : self.world_size * length]
        parts = slots.view(self.world_size, self.world_size, length)
        for rank, values in enumerate(rows):
            if rank != own:
                parts[own, rank].copy_(values)
        self._shared.meet(call, self._timeout)
        terms = list(parts[:, own])
        terms[own] = rows[own]
        _add_up(terms, total)

    def _broadcast(self, flat: torch.Tensor, src: int, call: Call) -> None:
        for start, end in self._chunks(flat.numel(), self._slot(flat)):
            slot = self._shared.next_slots(flat.dtype)[src, : end - start]
            if self.rank_in_group == src:
                slot.copy_(flat[start:end])
            self._shared.meet(call, self._timeout)
            if self.rank_in_group != src:
                flat[start:end].copy_(slot)

    def _gather(self, flat: torch.Tensor, joined: torch.Tensor | None, call: Call) -> None:
        rows = None if joined is None else joined.view(self.world_size, flat.numel())
        with self._collective(call):
            for start, end in self._chunks(flat.numel(), self._slot(flat)):
                slots = self._shared.next_slots(flat.dtype)[:, : end - start]
                slots[self.rank_in_group].copy_(flat[start:end])
                self._shared.meet(call, self._timeout)
                if rows is not None:
                    rows[:, start:end].copy_(slots)

    @contextmanager
    def _collective(self, call: Call) -> Iterator[None]:
        with self._labels.collective(call), self._shared.collective():
            yield

    def _slot(self, flat: torch.Tensor) -> int:
        return self._shared.segment.slot_size // flat.element_size()

    def _chunks(self, numel: int, most: int) -> Iterator[tuple[int, int]]:
        for start in range(0, numel, most):
            yield start, min(start + most, numel)


def _call(operation: Operation, flat: torch.Tensor, root: int = 0) -> Call:
    return Call(operation, flat.dtype, flat.numel() * flat.element_size(), root)


def _add_up(terms: list[torch.Tensor], total: torch.Tensor) -> None:
    """Write the sum of the terms, taken from the first to the last, into `total`."""
    torch.add(terms[0], terms[1], out=total)
    for term in terms[2:]:
        total.add_(term)
