from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch

from pytest_vdist.reference_impl.handles import Handle, PendingSends


class Work:
    """A message that is through at once, or as gloo's only after a wait, or never."""

    def __init__(self, *, known_before_wait: bool = True, error: Any = None) -> None:
        self.waits = 0
        self.error = error
        self._known_before_wait = known_before_wait

    def wait(self) -> None:
        self.waits += 1
        if self.error is not None:
            raise self.error

    def is_completed(self) -> bool:
        return self._known_before_wait or self.waits > 0


def test_a_second_wait_does_not_wait_again() -> None:
    work = Work()
    handle = Handle([work], [])
    handle.wait()
    handle.wait()
    assert work.waits == 1


def test_a_second_wait_on_a_failed_message_fails_the_same_way() -> None:
    work = Work(error=RuntimeError("peer is gone"))
    handle = Handle([work], [])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="peer is gone"):
            handle.wait()
    assert work.waits == 1


def test_buffers_live_until_the_message_is_through() -> None:
    buffer = torch.zeros(3)
    handle = Handle([Work()], [buffer])
    alive = weakref.ref(buffer)
    del buffer
    assert alive() is not None
    handle.wait()
    assert alive() is None


def test_messages_that_are_through_make_room_without_being_waited_for() -> None:
    pending = PendingSends(limit=2)
    for _ in range(10):
        pending.make_room()
        pending.add([Handle([Work()], [])])
    assert len(pending) == 1


def test_no_more_than_the_limit_is_kept_where_only_a_wait_tells() -> None:
    pending = PendingSends(limit=3)
    works = [Work(known_before_wait=False) for _ in range(10)]
    for work in works:
        pending.make_room()
        pending.add([Handle([work], [])])
        assert len(pending) <= 3
    assert [work.waits for work in works] == [1] * 7 + [0] * 3


def test_a_dropped_message_that_failed_fails_the_next_send_and_no_more() -> None:
    pending = PendingSends(limit=1)
    pending.add([Handle([Work(known_before_wait=False, error=RuntimeError("timed out"))], [])])
    with pytest.raises(RuntimeError, match="timed out"):
        pending.make_room()
    pending.make_room()
    assert len(pending) == 0
