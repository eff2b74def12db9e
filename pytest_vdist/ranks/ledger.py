"""The last collectives that a rank entered, where the controller can read them when the rank can't speak.

A ring of entries in shared memory: it survives the rank's death, and a rank that holds the GIL.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_HEADER = struct.Struct("<cxxxxxxxQQ")  # state, entries written, entry that the rank is in
_SLOT_BYTES = 256
_SLOTS = 64
_FIRST_SLOT = 64
LEDGER_BYTES = _FIRST_SLOT + _SLOTS * _SLOT_BYTES
_NOTHING, _INSIDE, _OUTSIDE = b"\0", b"+", b"-"

# Operations whose tensor has the same shape and dtype on every rank, as far as the ledger records it.
_ALIKE = frozenset(
    {"all_reduce", "broadcast", "reduce", "all_gather_into_tensor", "all_gather_single"}
    | {"reduce_scatter_tensor", "reduce_scatter_single"}
)
POINT_TO_POINT = frozenset({"send", "recv", "recv_anysource"})


@dataclass(frozen=True)
class LedgerEntry:
    """One call of a process group's method.

    `number` counts the collectives of the group since the run began, on this rank; point-to-point calls have
    a count of their own. `group` is for people, `group_key` the same on all ranks of the group.
    `detail` is the peer, root or reduction, `tensors` dtype and shape of the first tensor.
    """

    operation: str
    group: str
    group_key: str
    number: int
    detail: str
    tensors: str

    def __str__(self) -> str:
        detail = f" {self.detail}" if self.detail else ""
        tensors = f" of {self.tensors}" if self.tensors else ""
        return f"{self.operation} #{self.number} of group {self.group}{detail}{tensors}"


@dataclass(frozen=True)
class LedgerReading:
    """What a ledger says: the last entries in order, and whether the rank is still inside `last`."""

    entries: tuple[LedgerEntry, ...] = ()
    last: LedgerEntry | None = None
    inside: bool = False


class LedgerPage:
    """The shared page. The rank writes; the controller reads at any time."""

    def __init__(self, page: mmap.mmap) -> None:
        self._page = page
        self._written = 0

    def clear(self) -> None:
        """Start anew, with a new run."""
        self._written = 0
        _HEADER.pack_into(self._page, 0, _NOTHING, 0, 0)

    def enter(self, entry: LedgerEntry) -> int:
        """Write an entry, mark the rank as inside it, and return its index."""
        line = "\t".join(
            (entry.operation, entry.group, entry.group_key, str(entry.number), entry.detail, entry.tensors)
        )
        index, self._written = self._written, self._written + 1
        start = _FIRST_SLOT + index % _SLOTS * _SLOT_BYTES
        data = line.encode(errors="replace")[:_SLOT_BYTES]
        self._page[start : start + _SLOT_BYTES] = data.ljust(_SLOT_BYTES, b"\0")
        self.reenter(index)
        return index

    def reenter(self, index: int) -> None:
        """Mark the rank as inside an earlier entry again: it waits for its work."""
        _HEADER.pack_into(self._page, 0, _INSIDE, self._written, index)

    def leave(self) -> None:
        self._page[:1] = _OUTSIDE

    def read(self) -> LedgerReading:
        """Return what stands there. A slot that is being written just then is left out."""
        state, written, current = _HEADER.unpack_from(self._page)
        if state == _NOTHING or not written:
            return LedgerReading()
        by_index = {index: self._slot(index) for index in range(max(0, written - _SLOTS), written)}
        entries = tuple(entry for entry in by_index.values() if entry is not None)
        return LedgerReading(entries, by_index.get(current), state == _INSIDE)

    def close(self) -> None:
        self._page.close()

    def _slot(self, index: int) -> LedgerEntry | None:
        start = _FIRST_SLOT + index % _SLOTS * _SLOT_BYTES
        fields = self._page[start : start + _SLOT_BYTES].rstrip(b"\0").decode(errors="replace").split("\t")
        if len(fields) < 6 or not fields[3].isdecimal():
            return None
        operation, group, key, number, detail, tensors = fields
        return LedgerEntry(operation, group, key, int(number), detail, tensors)


def first_mismatch(histories: Mapping[int, Sequence[LedgerEntry]]) -> str:
    """Name the first collective of a group that ranks entered with different operation, root, shape or dtype.

    `histories` are entries by rank. Returns "" where they agree as far as they go.
    """
    calls: dict[tuple[str, int], dict[int, LedgerEntry]] = {}
    for rank, entries in histories.items():
        for entry in entries:
            if entry.operation not in POINT_TO_POINT:
                calls.setdefault((entry.group_key, entry.number), {})[rank] = entry
    for (_, number), by_rank in sorted(calls.items(), key=lambda item: item[0][1]):
        ranks_of: dict[str, list[int]] = {}
        for rank, entry in by_rank.items():
            ranks_of.setdefault(_essence(entry), []).append(rank)
        if len(ranks_of) > 1:
            group = next(iter(by_rank.values())).group
            sides = ", ".join(f"{call} on {named(ranks)}" for call, ranks in ranks_of.items())
            return f"mismatched collectives: #{number} of group {group} is {sides}"
    return ""


def named(ranks: Sequence[int]) -> str:
    """Return "rank 3" or "ranks 0, 1"."""
    return f"rank {ranks[0]}" if len(ranks) == 1 else "ranks " + ", ".join(map(str, ranks))


def _essence(entry: LedgerEntry) -> str:
    """Return what all ranks of a group must have in common at one collective."""
    detail = f" {entry.detail}" if entry.detail else ""
    tensors = f" of {entry.tensors}" if entry.tensors and entry.operation in _ALIKE else ""
    return f"{entry.operation}{detail}{tensors}"
