"""Waiting for the replies of all ranks: who answered, who died, who is stuck, who wants to be debugged."""

from __future__ import annotations

import selectors
import time
from collections.abc import Sequence

from pytest_vdist.ranks.debugger import Ask
from pytest_vdist.ranks.failures import RankStatus, State
from pytest_vdist.ranks.ledger import LedgerReading
from pytest_vdist.ranks.messages import Outcome, Question, Reply
from pytest_vdist.ranks.rank import Rank

_GRACE = 0.5  # after the first failure, for the others to fail too: their error may be the clearer one
_SAME_RANK_FIRST = 0.2  # for a rank that was just answered to ask again, before another one is heard


class Gathering:
    """Collects one reply from every rank."""

    def __init__(
        self,
        ranks: Sequence[Rank],
        selector: selectors.EpollSelector,
        ask: Ask,
        *,
        to_the_end: bool = False,
    ) -> None:
        """With `to_the_end`, a failure of one rank does not shorten the time of the others."""
        self._ranks = ranks
        self._to_the_end = to_the_end
        self._selector = selector
        self._ask = ask
        self.replies: dict[int, Reply] = {}
        self._died: dict[int, float] = {}
        self._failed_at: float | None = None
        self.talked = 0.0

    @property
    def complete(self) -> bool:
        """Whether every rank has answered or died."""
        return len(self.replies) + len(self._died) == len(self._ranks)

    def send(self, rank: Rank, message: bytes) -> bool:
        """Send to a rank; returns False if it has ended."""
        try:
            rank.send(message)
        except OSError:
            return False
        return True

    def wait(self, deadline: float) -> None:
        """Return when complete, or at the deadline, or soon after the first failure unless `to_the_end`.

        The time in which somebody debugs a rank does not count.
        """
        while not self.complete:
            limit = deadline
            if self._failed_at is not None and not self._to_the_end:
                limit = min(deadline, self._failed_at + _GRACE)
            if not self.receive(max(0.0, limit - self._now())):
                return

    def receive(self, seconds: float) -> bool:
        """Take in what the ranks have sent; waits so long for the first of it. Returns False if none came."""
        ready = self._selector.select(seconds)
        for key, _ in ready:
            self._receive(key.data, key.fileobj)
        return bool(ready)

    def fileno(self) -> int:
        """Return what is readable when `receive` will not wait, for those who wait for several gatherings."""
        return self._selector.fileno()

    def statuses(self) -> list[RankStatus]:
        """Say how each rank stands; asks the stuck ones for their stacks."""
        return [self._status(rank) for rank in self._ranks]

    def _receive(self, rank: Rank, source: object) -> None:
        if rank.rank in self._died:
            return
        message = rank.receive(source)
        if isinstance(message, Question):
            self._answer(rank, message)
        elif message is None:
            self._note_death(rank)
        else:
            self._note_reply(rank, message)

    def _answer(self, rank: Rank, question: Question) -> None:
        """Converse with one rank for as long as it asks again at once."""
        started = time.monotonic()
        message: Question | Reply | None = question
        while isinstance(message, Question):
            output = "".join(rank.new_output(name) for name in ("stdout", "stderr"))
            self.send(rank, self._ask(output + message.text).encode())
            if not rank.poll(_SAME_RANK_FIRST):
                break
            message = rank.receive(rank.sources[0])
        self.talked += time.monotonic() - started
        if isinstance(message, Reply):
            self._note_reply(rank, message)

    def _note_reply(self, rank: Rank, reply: Reply) -> None:
        self.replies[rank.rank] = reply
        if reply.outcome is not Outcome.RETURNED and self._failed_at is None:
            self._failed_at = self._now()

    def _note_death(self, rank: Rank) -> None:
        for source in rank.sources:
            self._selector.unregister(source)
        if rank.rank in self.replies:  # it has answered, and ended then: the next run will notice
            return
        self._died[rank.rank] = time.monotonic()
        self._failed_at = self._now() if self._failed_at is None else self._failed_at

    def _now(self) -> float:
        """Return the time on a clock that stands still while somebody debugs."""
        return time.monotonic() - self.talked

    def _status(self, rank: Rank) -> RankStatus:
        ledger = rank.read_ledger()
        if rank.rank in self._died:
            died = self._died[rank.rank]
            reason, output = rank.exit_text(), rank.last_output()
            return RankStatus(rank.rank, State.DIED, died, reason=reason, ledger=ledger, output=output)
        if rank.rank in self.replies:
            return _status_of_reply(rank.rank, self.replies[rank.rank], ledger)
        return RankStatus(rank.rank, State.STUCK, time.monotonic(), ledger=ledger, stack=rank.stack())


def _status_of_reply(rank: int, reply: Reply, ledger: LedgerReading) -> RankStatus:
    if reply.outcome is Outcome.RETURNED:
        return RankStatus(rank, State.RETURNED, 0.0, ledger=ledger)
    if reply.outcome is Outcome.RAISED:
        assert reply.raised is not None
        return RankStatus(rank, State.RAISED, reply.raised.monotonic, raised=reply.raised, ledger=ledger)
    return RankStatus(rank, State.SKIPPED, 0.0, reason=reply.reason, ledger=ledger)
