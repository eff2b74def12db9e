"""Operations in flight, and what keeps their buffers alive."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import torch

from .failures import CommunicationError
from .objects import dump, header
from .ordered_group import OrderedGroup


class Work(Protocol):
    """What torch.distributed returns for an operation that it has started."""

    def wait(self) -> object: ...
    def is_completed(self) -> bool: ...


class Handle:
    """One message in flight, with the buffers that it reads or fills."""

    def __init__(
        self, works: Sequence[Work], buffers: Sequence[torch.Tensor], operation: str = "wait"
    ) -> None:
        """Take what was started. `operation` is what errors call it."""
        self._works = list(works)
        self._buffers = list(buffers)
        self._operation = operation
        self._error: Exception | None = None

    def wait(self) -> None:
        """Wait until the message is through. A second wait returns at once, or raises what the first did."""
        if self._error is not None:
            raise self._error
        works, self._works = self._works, []
        try:
            for work in works:
                work.wait()
        except CommunicationError as error:
            self._error = error.during(self._operation)
            raise self._error from error.__cause__
        except Exception as error:
            self._error = error
            raise
        finally:
            self._buffers = []

    def is_completed(self) -> bool:
        """Tell, without waiting, whether the message is known to be through. gloo knows only after a wait."""
        return all(work.is_completed() for work in self._works)


class PendingSends:
    """Messages whose handles the caller may drop: kept until they are through, at most `limit` of them."""

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._messages: deque[list[Handle]] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    def make_room(self) -> None:
        """Forget the messages that are through and, while the limit is reached, wait for the oldest one.

        Raises what that message failed with. The wait obeys the timeout of its group.
        """
        done = [message for message in self._messages if all(handle.is_completed() for handle in message)]
        for message in done:
            self._finish(message)
        while len(self._messages) >= self._limit:
            self._finish(self._messages[0])

    def add(self, message: list[Handle]) -> None:
        """Keep the handles of a message that was just started."""
        self._messages.append(message)

    def clear(self) -> None:
        self._messages.clear()

    def _finish(self, message: list[Handle]) -> None:
        self._messages.remove(message)
        for handle in message:
            handle.wait()


def isend_tensor(group: OrderedGroup, flat: torch.Tensor, dst: int) -> Handle:
    """Start to send a 1-D tensor that is not empty, and that stays as it is until its handle is waited."""
    return Handle([group.isend(flat, dst)], [flat], "isend_tensor_dict")


def irecv_tensor(group: OrderedGroup, flat: torch.Tensor, src: int) -> Handle:
    """Start to fill a 1-D contiguous tensor that is not empty."""
    return Handle([group.irecv(flat, src)], [flat], "irecv_tensor_dict")


def isend_object(group: OrderedGroup, obj: object, dst: int) -> Handle:
    """Start to send a picklable object, as it is now. Raises TypeError, with nothing sent, for another."""
    return isend_dumped(group, dump(obj), dst, "isend_object")


def isend_dumped(
    group: OrderedGroup, data: torch.Tensor, dst: int, operation: str = "isend_tensor_dict"
) -> Handle:
    """Start to send what `dump` made of an object."""
    size = header(data)
    return Handle([group.isend(size, dst), group.isend(data, dst)], [size, data], operation)
