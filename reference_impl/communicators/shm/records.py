"""What ranks that share memory tell each other over their sockets: records of one size."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

import torch

_LAYOUT = struct.Struct("<BBBxIQQ")
RECORD_SIZE = _LAYOUT.size


class Kind(enum.IntEnum):
    """What a record says."""

    ARRIVED = 1  # the sender has come to a step of a collective
    MESSAGE = 2  # a message lies in the sender's arena
    MESSAGE_IN_NEW_ARENA = 3  # the same, and the descriptor of the arena comes with it
    MESSAGE_ELSEWHERE = 4  # the message goes over torch.distributed
    RELEASED = 5  # the oldest message in the receiver's arena has been read
    FAILED = 6  # the sender has given the group up
    MESSAGE_IN_LOAN = 7  # a message lies in memory that the receiver has until it gives it back
    MESSAGE_IN_NEW_LOAN = 8  # the same, and the descriptor of the memory comes with it
    RETURNED = 9  # the receiver gives a loan back, and keeps it mapped for the next message
    RETURNED_AND_FORGOTTEN = 10  # the same, but it has unmapped it
    FORGOTTEN = 11  # the sender will not use that memory any more


class Operation(enum.IntEnum):
    """The collective of a step, or in a FAILED record the reason."""

    NONE = 0
    ALL_REDUCE = 1
    ALL_GATHER = 2
    REDUCE_SCATTER = 3
    GATHER = 4
    BROADCAST = 5
    BARRIER = 6
    GONE = 7
    TIMED_OUT = 8
    MISMATCH = 9
    INTERRUPTED = 10
    BROADCAST_OBJECT = 11


WITH_ROOT = frozenset({Operation.GATHER, Operation.BROADCAST, Operation.BROADCAST_OBJECT})


# Told to other ranks by index: append only.
_DTYPES: tuple[torch.dtype | None, ...] = (
    None,
    torch.uint8,
    torch.int8,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)


@dataclass(frozen=True)
class Call:
    """A collective as every rank must call it: `size` in bytes, `root` where one rank is special."""

    operation: Operation
    dtype: torch.dtype | None = None
    size: int = 0
    root: int = 0

    def __str__(self) -> str:
        name = self.operation.name.lower()
        root = f" with root {self.root}" if self.operation in WITH_ROOT else ""
        size = "" if self.dtype is None else f" of {self.size} bytes of {self.dtype}"
        return f"{name}{root}{size}"


@dataclass(frozen=True)
class Record:
    """One record. `number` is the step of a collective or the place of a message, `size` is in bytes."""

    kind: Kind
    operation: Operation = Operation.NONE
    dtype: torch.dtype | None = None
    root: int = 0
    number: int = 0
    size: int = 0

    @property
    def call(self) -> Call:
        return Call(self.operation, self.dtype, self.size, self.root)


def arrival(call: Call, step: int) -> bytes:
    """Pack what a rank says when it has come to step number `step`, the first of which is 1."""
    return _LAYOUT.pack(Kind.ARRIVED, call.operation, _DTYPES.index(call.dtype), call.root, step, call.size)


def pack(record: Record) -> bytes:
    return _LAYOUT.pack(
        record.kind,
        record.operation,
        _DTYPES.index(record.dtype),
        record.root,
        record.number,
        record.size,
    )


def unpack(data: bytes) -> Record:
    kind, operation, dtype, root, number, size = _LAYOUT.unpack(data)
    return Record(Kind(kind), Operation(operation), _DTYPES[dtype], root, number, size)
