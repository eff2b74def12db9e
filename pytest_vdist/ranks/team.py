"""N rank processes that serve runs together: dispatch, collect with a deadline, find out who is to blame."""

from __future__ import annotations

import pickle
import selectors
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_vdist.ranks import _compat, ticking
from pytest_vdist.ranks.debugger import Ask
from pytest_vdist.ranks.failures import (
    DistributedRunError,
    RanksUnavailableError,
    State,
    failure_of,
)
from pytest_vdist.ranks.gathering import Gathering
from pytest_vdist.ranks.messages import Outcome, Reply, Run, Traffic, WorldSpec
from pytest_vdist.ranks.process import RankProcess
from pytest_vdist.ranks.rank import Rank, RankLauncher

_START_TIMEOUT = 120.0
_NOTICE_EVERY = 1.0
_CLOSE_TIMEOUT = 1.0


class RankLostError(Exception):
    """Raised when an idle rank has ended before a run could begin on it. The team is closed."""


@dataclass(frozen=True)
class Result:
    """What came of a run: the replies by rank, or the failure; `output` by rank is (stdout, stderr)."""

    replies: tuple[Reply | None, ...]
    failure: DistributedRunError | None
    output: tuple[tuple[str, str], ...]


class Team:
    """Warm ranks of one world size. A failure closes it: half-finished traffic can't be trusted."""

    def __init__(
        self,
        launcher: RankLauncher,
        world_size: int,
        devices: Sequence[str],
        notify: Callable[[str], None],
    ) -> None:
        """Start the ranks on `devices`, in order, and from the first again; none are named on the CPU."""
        self.world_size = world_size
        self.controller_environment = _compat.environment_snapshot()
        self.world: tuple[WorldSpec, int] | None = None
        self._launcher = launcher
        self._store: Any = None
        self._ranks: list[Rank] = []
        self._selector = selectors.EpollSelector()
        gathering = Gathering(self._ranks, self._selector, lambda _: "")
        try:
            with ticking.every(_NOTICE_EVERY, lambda: notify(_progress_text(gathering, world_size))):
                with launcher.starting():
                    for rank in range(world_size):
                        self._add(launcher.start(rank, world_size, devices))
                self._await_ready(gathering)
        except BaseException:
            self.kill()
            raise

    @property
    def pids(self) -> list[int]:
        """The process ids of the ranks of this machine that this process has started."""
        return [rank.pid for rank in self._ranks if isinstance(rank, RankProcess)]

    def master_port(self, world: WorldSpec, *, new: bool) -> int:
        """Return the port of the store for `env://`: its own for each world that torch doesn't make."""
        if world.process_group_backend is not None:
            return self._launcher.endpoint()[1]
        if new or self._store is None:
            self._store = self._launcher.new_store()
        return int(self._store.port)

    def ended_ranks(self) -> list[str]:
        """Describe the ranks whose processes have ended while nobody asked anything of them.

        Idle ranks say nothing: what can be read from one is the end of its connection, or of itself. The
        connection closes a moment before the exit is known.
        """
        ended = {key.data.rank: key.data for key, _ in self._selector.select(0)}
        return [f"rank {rank}: {ended[rank].exit_text()}" for rank in sorted(ended)]

    def execute(self, run: Run, timeout: float, ask: Ask, *, to_the_end: bool = False) -> Result:
        """Run on every rank and wait for all, at most `timeout` seconds. A failed team is killed already.

        Raises RankLostError if the run did not begin everywhere, so that it can be made on another team.
        `to_the_end` gives ranks all of the time also where another one has failed.
        `ask` converses with a rank that is being debugged; the time that it takes does not count.
        """
        deadline = time.monotonic() + timeout
        try:
            gathering = self.begin(run, ask, to_the_end=to_the_end)
            gathering.wait(deadline)
            return self.conclude(run, gathering, timeout)
        except BaseException:
            self.kill()
            raise

    def begin(self, run: Run, ask: Ask, *, to_the_end: bool) -> Gathering:
        """Send the run to every rank, and return what collects the replies. Raises RankLostError."""
        message = pickle.dumps(run, protocol=pickle.HIGHEST_PROTOCOL)
        gathering = Gathering(self._ranks, self._selector, ask, to_the_end=to_the_end)
        for rank in self._ranks:
            if not gathering.send(rank, message):
                raise RankLostError(f"rank {rank.rank}: {rank.exit_text()}")
        return gathering

    def conclude(self, run: Run, gathering: Gathering, timeout: float) -> Result:
        """Return what came of a run that is over. A failed team is killed."""
        replies, failure = gathering.replies, None
        if not _agreed(replies, self.world_size):
            failure = failure_of(gathering.statuses(), timeout)
        output = tuple((rank.new_output("stdout"), rank.new_output("stderr")) for rank in self._ranks)
        result = Result(tuple(replies.get(rank) for rank in range(self.world_size)), failure, output)
        if result.failure is not None or not all(_usable(reply) for reply in result.replies):
            self.kill()
        self.world = (run.world, run.world_serial) if _world_is_clean(result) else None
        return result

    def close(self) -> None:
        """Let idle ranks end, and wait for them."""
        for rank in self._ranks:
            rank.hang_up()
        self._release(_CLOSE_TIMEOUT)

    def kill(self) -> None:
        for rank in self._ranks:
            rank.kill()
        self._release(_CLOSE_TIMEOUT)

    @property
    def closed(self) -> bool:
        return not self._ranks

    def _add(self, rank: Rank) -> None:
        self._ranks.append(rank)
        for source in rank.sources:
            self._selector.register(source, selectors.EVENT_READ, rank)

    def _release(self, patience: float) -> None:
        self._selector.close()
        deadline = time.monotonic() + patience
        for rank in self._ranks:
            rank.release(max(0.0, deadline - time.monotonic()))
        self._ranks = []
        self._store = None

    def _await_ready(self, gathering: Gathering) -> None:
        gathering.wait(time.monotonic() + _START_TIMEOUT)
        if len(gathering.replies) < self.world_size:
            statuses = gathering.statuses()
            missing = [s for s in statuses if s.state is not State.RETURNED]
            what = missing[0].reason or f"it was not ready within {_START_TIMEOUT:g} s"
            message = f"rank {missing[0].rank} of {self.world_size} could not be started: {what}"
            raise RanksUnavailableError(message, statuses)


def _progress_text(gathering: Gathering, world_size: int) -> str:
    return f"vdist: {len(gathering.replies)} of {world_size} ranks are ready"


def _agreed(replies: dict[int, Reply], world_size: int) -> bool:
    outcomes = {reply.outcome for reply in replies.values()}
    return len(replies) == world_size and len(outcomes) == 1 and Outcome.RAISED not in outcomes


def _usable(reply: Reply | None) -> bool:
    return reply is not None and reply.outcome is Outcome.RETURNED and reply.rank_reusable


def _world_is_clean(result: Result) -> bool:
    """Tell whether the world can serve another run: untouched, and no message is still under way in it."""
    replies = [reply for reply in result.replies if reply is not None and reply.world_reusable]
    if len(replies) < len(result.replies):
        return False
    traffic = [reply.traffic for reply in replies]
    return len({t.collectives for t in traffic}) == 1 and _all_received(traffic)


def _all_received(traffic: Sequence[Traffic]) -> bool:
    sent = {(a, b): n for a, t in enumerate(traffic) for b, n in t.sent.items()}
    received = {(a, b): n for b, t in enumerate(traffic) for a, n in t.received.items()}
    return sent == received
