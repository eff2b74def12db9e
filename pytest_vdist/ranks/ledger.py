"""The last collective that a rank entered, kept where the controller can read it when the rank can't speak.

One line in shared memory, rewritten at each call of a process group's method; it survives the rank's death
and a rank that holds the GIL.
"""

from __future__ import annotations

import functools
import mmap
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from pytest_vdist.ranks import _compat
from pytest_vdist.ranks.messages import Traffic

LEDGER_BYTES = 4096
_PENDING_KEPT = 256
_METHODS = {
    "allreduce": "all_reduce",
    "allreduce_coalesced": "all_reduce_coalesced",
    "allgather": "all_gather",
    "allgather_coalesced": "all_gather_coalesced",
    "_allgather_base": "all_gather_into_tensor",
    "all_gather_single": "all_gather_single",
    "allgather_into_tensor_coalesced": "all_gather_into_tensor_coalesced",
    "all_gather_single_coalesced": "all_gather_single_coalesced",
    "alltoall": "all_to_all",
    "alltoall_base": "all_to_all_single",
    "all_to_all_single": "all_to_all_single",
    "barrier": "barrier",
    "broadcast": "broadcast",
    "gather": "gather",
    "reduce": "reduce",
    "reduce_scatter": "reduce_scatter",
    "_reduce_scatter_base": "reduce_scatter_tensor",
    "reduce_scatter_single": "reduce_scatter_single",
    "reduce_scatter_tensor_coalesced": "reduce_scatter_tensor_coalesced",
    "reduce_scatter_single_coalesced": "reduce_scatter_single_coalesced",
    "scatter": "scatter",
    "send": "send",
    "recv": "recv",
    "recv_anysource": "recv_anysource",
}


@dataclass(frozen=True)
class LedgerEntry:
    """One call of a process group's method. `inside` tells whether the call has not returned yet."""

    inside: bool
    operation: str
    group: str
    number: int
    tensors: str
    peer: str
    monotonic: float

    def __str__(self) -> str:
        tensors = f" of {self.tensors}" if self.tensors else ""
        return f"{self.operation} #{self.number} of group {self.group}{self.peer}{tensors}"


def read_entry(page: mmap.mmap) -> LedgerEntry | None:
    """Return what the rank last wrote, or None if it has entered no collective."""
    line = page[1:].split(b"\n", 1)[0].decode(errors="replace")
    if page[:1] == b"\0" or not line:
        return None
    operation, group, number, tensors, peer, monotonic = line.split("\t")
    return LedgerEntry(page[:1] == b"+", operation, group, int(number), tensors, peer, float(monotonic))


class Ledger:
    """Writes the entries of this rank, and counts its traffic per group."""

    def __init__(self, page: mmap.mmap) -> None:
        self._page = page
        self._calls: Counter[str] = Counter()
        self._sent: Counter[tuple[str, int]] = Counter()
        self._received: Counter[tuple[str, int]] = Counter()
        self._pending: OrderedDict[int, bytes] = OrderedDict()

    def watch_process_groups(self) -> None:
        """Write an entry at each call of a method of torch's ProcessGroup, from whoever makes it."""
        for method, operation in _METHODS.items():
            original = getattr(dist.ProcessGroup, method, None)
            if original is not None:
                setattr(dist.ProcessGroup, method, self._noting(original, operation))

    def watch_waits(self) -> None:
        """Mark the rank as inside its operation again while it waits for the work handle."""
        original = dist.Work.wait

        @functools.wraps(original)
        def wait(work: dist.Work, *args: Any, **kwargs: Any) -> Any:
            self._reenter(work)
            try:
                return original(work, *args, **kwargs)
            finally:
                self._page[:1] = b"-"

        dist.Work.wait = wait  # type: ignore[method-assign,assignment]

    def begin_run(self) -> None:
        """Start anew: numbers of collectives count from the beginning of a run."""
        self._page[:1] = b"\0"
        self._calls.clear()
        self._sent.clear()
        self._received.clear()
        self._pending.clear()

    def traffic(self, group: dist.ProcessGroup) -> Traffic:
        """Return this rank's traffic in `group`: messages of this run, collectives since it was made."""
        name = group.group_name
        return Traffic(
            collectives=_compat.sequence_number(group),
            sent={peer: count for (of, peer), count in self._sent.items() if of == name},
            received={peer: count for (of, peer), count in self._received.items() if of == name},
        )

    def _noting(self, original: Callable[..., Any], operation: str) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(group: dist.ProcessGroup, *args: Any, **kwargs: Any) -> Any:
            line = self._enter(group, operation, args)
            try:
                work = original(group, *args, **kwargs)
            finally:
                self._page[:1] = b"-"
            self._remember(work, line)
            return work

        return call

    def _remember(self, work: object, line: bytes) -> None:
        self._pending[id(work)] = line
        if len(self._pending) > _PENDING_KEPT:
            self._pending.popitem(last=False)

    def _reenter(self, work: object) -> None:
        line = self._pending.get(id(work))
        if line is not None:
            self._page[1 : 1 + len(line)] = line
            self._page[:1] = b"+"

    def _enter(self, group: dist.ProcessGroup, operation: str, args: tuple[Any, ...]) -> bytes:
        name = group.group_name
        self._calls[name] += 1
        peer = self._note_peer(name, operation, args)
        line = "\t".join(
            (
                operation,
                _compat.group_label(group),
                str(self._calls[name]),
                _tensors_text(args),
                peer,
                f"{time.monotonic():.6f}\n",
            )
        ).encode()[: LEDGER_BYTES - 1]
        self._page[1 : 1 + len(line)] = line
        self._page[:1] = b"+"
        return line

    def _note_peer(self, group: str, operation: str, args: tuple[Any, ...]) -> str:
        if operation == "send" and len(args) > 1:
            self._sent[group, int(args[1])] += 1
            return f" to rank {args[1]}"
        if operation == "recv" and len(args) > 1:
            self._received[group, int(args[1])] += 1
            return f" from rank {args[1]}"
        if operation == "recv_anysource":
            self._received[group, -1] += 1
            return " from any rank"
        return ""


def _tensors_text(args: tuple[Any, ...]) -> str:
    tensor = _first_tensor(args)
    if tensor is None:
        return ""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _first_tensor(value: Any) -> torch.Tensor | None:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, list | tuple):
        for item in value[:2]:
            found = _first_tensor(item)
            if found is not None:
                return found
    return None
