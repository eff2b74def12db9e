"""What a team needs of a rank and of what starts it: processes of this machine, or of torchrun's nodes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from pytest_vdist.ranks.ledger import LedgerReading
from pytest_vdist.ranks.messages import Question, Reply


class Rank(Protocol):
    """One rank as its controller sees it, dead or alive."""

    @property
    def rank(self) -> int: ...

    @property
    def sources(self) -> Sequence[Any]:
        """What becomes readable when a message has come in or the process has ended."""
        ...

    def send(self, message: bytes) -> None:
        """Send to the process. Raises OSError if it is known to have ended."""
        ...

    def poll(self, seconds: float) -> bool:
        """Wait for a message, or the end of the process."""
        ...

    def receive(self, source: Any) -> Reply | Question | None:
        """Return the message that made `source` readable; None if the process has ended instead."""
        ...

    def exit_text(self) -> str:
        """Say how the process ended."""
        ...

    def read_ledger(self) -> LedgerReading:
        """Return which collectives the rank has entered."""
        ...

    def new_output(self, name: str) -> str:
        """Return what the rank wrote to `stdout` or `stderr` since the last call."""
        ...

    def last_output(self) -> str:
        """Return the last lines that the rank wrote to either stream and nobody has read."""
        ...

    def stack(self) -> str:
        """Return the Python stack of every thread, or why it can't be had."""
        ...

    def hang_up(self) -> None:
        """Let an idle rank end by itself."""
        ...

    def kill(self) -> None:
        """End the process and what it started, now."""
        ...

    def release(self, patience: float) -> None:
        """Wait up to `patience` seconds for the process to end, else kill it; then free everything."""
        ...


class RankLauncher(Protocol):
    """Starts ranks, and serves the stores where they meet."""

    @property
    def places(self) -> int | None:
        """How many ranks there can be at once, None for as many as are asked for."""
        ...

    def endpoint(self) -> tuple[str, int]:
        """Return host and port of the store that serves all worlds made by torch."""
        ...

    def new_store(self) -> Any:
        """Serve a store, on the host of `endpoint`, for as long as the returned object lives."""
        ...

    def starting(self) -> AbstractContextManager[None]:
        """Hold while ranks are started."""
        ...

    def start(self, rank: int, world_size: int, devices: Sequence[str]) -> Rank:
        """Start a rank; it sees these devices alone, fewer than ranks perhaps, and all for none."""
        ...
