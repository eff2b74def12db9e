"""The memory that the ranks of a group share for their collectives."""

from __future__ import annotations

import mmap
import os

import torch

PAGE = 4096
TOKEN_SIZE = 16
_LINE = 64  # bytes of a cache line: each rank's counter has one of its own
LARGEST_SLOT = 4 << 20
_ROW = 16 << 20


class Segment:
    """A token, a counter of completed steps for each rank, and two rows of one slot for each rank.

    Two rows, because a rank may write its next input while others still read the last: whoever has come to
    the next step has read what was before it, so the row before last is free.
    """

    @torch.inference_mode(mode=False)  # memory that is kept is also written to outside of that mode
    def __init__(self, descriptor: int, world_size: int) -> None:
        """Map the memory of a descriptor, which stays the caller's to close. Raises OSError, ValueError."""
        self.world_size = world_size
        self.slot_size = slot_size(world_size)
        self._memory = mmap.mmap(descriptor, segment_size(world_size))
        self._counters = memoryview(self._memory)[PAGE : PAGE + _LINE * world_size].cast("Q")
        self._rows = torch.frombuffer(self._memory, dtype=torch.uint8)[_rows_start(world_size) :]
        self._views: dict[torch.dtype, torch.Tensor] = {}

    @property
    def token(self) -> bytes:
        return self._memory[:TOKEN_SIZE]

    @token.setter
    def token(self, value: bytes) -> None:
        self._memory[:TOKEN_SIZE] = value

    def completed(self, rank: int) -> int:
        """Return the last step that `rank` is through; only what it wrote before it went is sure to show."""
        return self._counters[rank * (_LINE // 8)]

    def complete(self, rank: int, step: int) -> None:
        self._counters[rank * (_LINE // 8)] = step

    def slots(self, row: int, dtype: torch.dtype) -> torch.Tensor:
        """View row 0 or 1 as (world_size, elements of a slot)."""
        view = self._views.get(dtype)
        if view is None:
            view = self._views[dtype] = self._view(dtype)
        return view[row]

    @torch.inference_mode(mode=False)
    def _view(self, dtype: torch.dtype) -> torch.Tensor:
        return self._rows.view(dtype).view(2, self.world_size, -1)


def slot_size(world_size: int) -> int:
    """Count the bytes of a slot: smaller where there are many ranks."""
    return min(LARGEST_SLOT, _ROW // world_size // PAGE * PAGE)


def segment_size(world_size: int) -> int:
    """Count the bytes of a segment. Pages that nobody writes take no memory."""
    return _rows_start(world_size) + 2 * world_size * slot_size(world_size)


def create(world_size: int) -> int:
    """Return the descriptor of new memory of the right size; it has no name and goes with its last user."""
    descriptor = os.memfd_create("vdist-group", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, segment_size(world_size))
    return descriptor


def _rows_start(world_size: int) -> int:
    return PAGE + -(-_LINE * world_size // PAGE) * PAGE
