"""A rank on the far side of one of torchrun's processes, as the controller sees it."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from dataclasses import replace
from typing import Any

from multiprocess.connection import Connection

from pytest_vdist.ranks import wire
from pytest_vdist.ranks.ledger import LedgerReading
from pytest_vdist.ranks.messages import Question, Reply
from pytest_vdist.ranks.process import last_lines
from pytest_vdist.ranks.torchrun import channel
from pytest_vdist.ranks.torchrun.messages import (
    Ended,
    FromRank,
    HangUp,
    Inquire,
    Kill,
    Output,
    Standing,
    ToRank,
)

_ANSWER_PATIENCE = 5.0


class RemoteRank:
    """One rank that torchrun's process at `place` has started. Its messages come through that process."""

    def __init__(self, rank: int, connection: Connection, place: str, clock_offset: float) -> None:
        """`clock_offset` in seconds is what the controller's clock is ahead of that of the node."""
        self.rank = rank
        self._connection = connection
        self._place = place
        self._clock_offset = clock_offset
        self._output: dict[str, str] = defaultdict(str)
        self._ended: Ended | None = None

    @property
    def sources(self) -> tuple[Any, ...]:
        return (self._connection,)

    def send(self, message: bytes) -> None:
        if self._ended is not None:
            raise BrokenPipeError(self._ended.reason)
        channel.send(self._connection, ToRank(message))

    def poll(self, seconds: float) -> bool:
        return bool(self._connection.poll(seconds))

    def receive(self, source: Any) -> Reply | Question | None:
        assert source is self._connection
        message = self._next()
        if not isinstance(message, FromRank):
            return None
        said: Reply | Question = wire.load_message(message.message)
        return self._on_own_clock(said)

    def exit_text(self) -> str:
        while self._ended is None and self.poll(_ANSWER_PATIENCE):
            self._next()
        return self._silence() if self._ended is None else self._ended.reason

    def read_ledger(self) -> LedgerReading:
        return self._inquire(with_stack=False).ledger

    def new_output(self, name: str) -> str:
        return self._output.pop(name, "")

    def last_output(self) -> str:
        return last_lines(self.new_output("stdout") + self.new_output("stderr"))

    def stack(self) -> str:
        return self._inquire(with_stack=True).stack

    def hang_up(self) -> None:
        self._tell(HangUp())

    def kill(self) -> None:
        self._tell(Kill())

    def release(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while self._ended is None and self.poll(max(0.0, deadline - time.monotonic())):
            self._next()
        self._connection.close()  # which ends a rank that is still there

    def _next(self) -> FromRank | Standing | Ended:
        """Return the next message; the end of the connection is that of the rank."""
        message: FromRank | Standing | Ended
        try:
            message = channel.receive(self._connection)
        except (EOFError, OSError):
            message = Ended(f"{self._place} has ended, or its node can't be reached")
        if isinstance(message, Ended):
            self._ended = message
        self._keep(message.output)
        return message

    def _inquire(self, *, with_stack: bool) -> Standing:
        if self._ended is None:
            self._tell(Inquire(with_stack))
        deadline = time.monotonic() + _ANSWER_PATIENCE
        while self._ended is None and self.poll(max(0.0, deadline - time.monotonic())):
            message = self._next()
            if isinstance(message, Standing):
                return message
        return Standing(stack=self._silence()) if self._ended is None else Standing(self._ended.ledger)

    def _tell(self, message: object) -> None:
        with contextlib.suppress(OSError):  # it has ended, and that is what is wanted or will be noticed
            channel.send(self._connection, message)

    def _keep(self, output: Output) -> None:
        self._output["stdout"] += output.stdout
        self._output["stderr"] += output.stderr

    def _silence(self) -> str:
        return f"{self._place} did not answer within {_ANSWER_PATIENCE:g} s"

    def _on_own_clock(self, said: Reply | Question) -> Reply | Question:
        if isinstance(said, Question) or said.raised is None:
            return said
        there = said.raised.monotonic
        return replace(said, raised=replace(said.raised, monotonic=there + self._clock_offset))
