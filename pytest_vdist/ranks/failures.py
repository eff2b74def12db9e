"""How a failed run reads: the exceptions of `distributed_run`, and their text.

DistributedRunError
├── RanksFailedError    a rank raised an exception, or the ranks disagree about skipping
├── RankDiedError       a rank's process ended
├── RanksHungError      ranks did not finish before the deadline
└── RanksUnavailableError   ranks could not be started
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from pytest_vdist.ranks import stacks
from pytest_vdist.ranks.ledger import LedgerReading, first_mismatch, named
from pytest_vdist.ranks.messages import RaisedException

# Where users import the exceptions from: short enough for the lines of pytest's summary.
_PUBLIC_HOME = "pytest_vdist"


class State(Enum):
    RETURNED = "returned"
    SKIPPED = "skipped"
    RAISED = "raised"
    DIED = "died"
    STUCK = "stuck"


@dataclass(frozen=True)
class RankStatus:
    """How one rank stood when the run ended. `monotonic` is when its state was reached, in seconds."""

    rank: int
    state: State
    monotonic: float
    reason: str = ""
    raised: RaisedException | None = None
    ledger: LedgerReading = field(default_factory=LedgerReading)
    stack: str = ""
    output: str = ""


class DistributedRunError(Exception):
    """Raised when a run on the ranks did not end with a result from every rank.

    `statuses` has one entry per rank; the text names the rank that failed first and what the others did.
    """

    __module__ = _PUBLIC_HOME

    def __init__(self, headline: str, statuses: Sequence[RankStatus]) -> None:
        super().__init__(headline)
        self.headline = headline
        self.statuses = tuple(statuses)

    def __str__(self) -> str:
        return report(self.headline, self.statuses)


class RanksFailedError(DistributedRunError):
    """Raised when the function raised an exception on at least one rank."""

    __module__ = _PUBLIC_HOME


class RankDiedError(DistributedRunError):
    """Raised when the process of at least one rank ended during the run."""

    __module__ = _PUBLIC_HOME


class RanksHungError(DistributedRunError):
    """Raised when at least one rank did not finish before the deadline of the run."""

    __module__ = _PUBLIC_HOME


class RanksUnavailableError(DistributedRunError):
    """Raised when the rank processes could not be started."""

    __module__ = _PUBLIC_HOME


def failure_of(statuses: Sequence[RankStatus], timeout: float) -> DistributedRunError:
    """Return the exception for a run in which not every rank returned.

    A death decides before any exception: peers often raise "connection closed" before anybody can learn of
    the death, while an exception leaves its process and connections alive. Then the first in time decides.
    """
    failed = sorted((s for s in statuses if s.state in {State.RAISED, State.DIED}), key=lambda s: s.monotonic)
    dead = [s for s in failed if s.state is State.DIED]
    if dead:
        first = dead[0]
        return RankDiedError(f"rank {first.rank} of {len(statuses)} died: {first.reason}", statuses)
    if failed:
        return RanksFailedError(_raised_headline(failed, len(statuses)), statuses)
    stuck = [s.rank for s in statuses if s.state is State.STUCK]
    if stuck:
        verb = "has" if len(stuck) == 1 else "have"
        headline = (
            f"{named(stuck)} of {len(statuses)} {verb} not finished within the timeout of {timeout:g} s"
        )
        return RanksHungError(f"{headline}: {_verdict(statuses)}", statuses)
    skipped = [s.rank for s in statuses if s.state is State.SKIPPED]
    returned = [s.rank for s in statuses if s.state is State.RETURNED]
    headline = f"the ranks disagree about skipping: {named(skipped)} skipped, {named(returned)} did not"
    return RanksFailedError(headline, statuses)


def report(headline: str, statuses: Sequence[RankStatus]) -> str:
    """Return the whole text: the headline, one line per rank, then tracebacks and stacks in order of time."""
    sections = [headline]
    failed = sorted((s for s in statuses if s.state in {State.RAISED, State.DIED}), key=lambda s: s.monotonic)
    mismatch = first_mismatch({s.rank: s.ledger.entries for s in statuses}) if failed else ""
    sections.append(mismatch)
    if any(s.state is State.STUCK or s.state is State.DIED for s in statuses):
        sections.append("\n".join(f"  {line}" for line in _standings(statuses)))
    start = failed[0].monotonic if failed else 0.0
    sections += [_raised_section(group, start) for group in _folded(failed)]
    sections += [_output_section(s) for s in statuses if s.state is State.DIED and s.output]
    sections += [f"stack of rank {s.rank}:\n{_indented(s.stack)}" for s in statuses if s.stack]
    return "\n\n".join(section for section in sections if section)


def exit_text(code: int | None) -> str:
    """Say how a process ended: the signal's name, or the exit code."""
    if code is None:
        return "its process ended, its exit code is not known"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"killed by {name}"
    return f"its process exited with code {code}"


def _raised_headline(failed: Sequence[RankStatus], world_size: int) -> str:
    parts = [
        f"{named([s.rank for s in group])} of {world_size} raised {_title(group[0])}"
        for group in _folded(failed)
    ]
    return "; then ".join(parts)


def _title(status: RankStatus) -> str:
    raised = status.raised
    if raised is None:
        return status.reason
    first_line = raised.message.strip().split("\n", 1)[0]
    return f"{raised.type_name}: {first_line}" if first_line else raised.type_name


def _folded(failed: Iterable[RankStatus]) -> list[list[RankStatus]]:
    """Group the raised exceptions that are equal but for the time, in order of their first appearance."""
    groups: dict[object, list[RankStatus]] = {}
    for status in failed:
        if status.raised is not None:
            groups.setdefault((status.raised.type_name, status.raised.traceback), []).append(status)
    return [sorted(group, key=lambda s: s.rank) for group in groups.values()]


def _raised_section(group: Sequence[RankStatus], start: float) -> str:
    first = min(group, key=lambda s: s.monotonic)
    assert first.raised is not None
    later = first.monotonic - start
    when = f", {later:.3f} s after the first failure" if later > 0 else ""
    return f"{named([s.rank for s in group])}{when}:\n{_indented(first.raised.traceback)}"


def _verdict(statuses: Sequence[RankStatus]) -> str:
    """Say in one line who is where, or which collectives do not match."""
    mismatch = first_mismatch({s.rank: s.ledger.entries for s in statuses})
    return mismatch or "; ".join(_standings(statuses))


def _standings(statuses: Sequence[RankStatus]) -> list[str]:
    """Say where each rank is, ranks in the same place together."""
    ranks_of: dict[tuple[str, str], list[int]] = {}
    for status in statuses:
        ranks_of.setdefault(_standing(status), []).append(status.rank)
    return [
        f"{named(ranks)} {'are' if verb == 'is' and len(ranks) > 1 else verb} {where}".rstrip()
        for (verb, where), ranks in ranks_of.items()
    ]


def _standing(status: RankStatus) -> tuple[str, str]:
    """Return the verb and the place."""
    if status.state is State.RAISED:
        return "raised", _title(status)
    if status.state is State.RETURNED:
        return "returned", ""
    if status.state is State.SKIPPED:
        return "skipped:", status.reason
    if status.state is State.DIED:
        return "died", f"{_collective(status)}: {status.reason}"
    return "is", whereabouts(status)


def whereabouts(status: RankStatus) -> str:
    """Say in or after which collective a rank is that has not finished, and at which line between two."""
    at = "" if status.ledger.inside else stacks.place(status.stack)
    return f"{_collective(status)}, at {at}" if at else _collective(status)


def _collective(status: RankStatus) -> str:
    if status.ledger.last is None:
        return "before its first collective"
    return f"{'in' if status.ledger.inside else 'after'} {status.ledger.last}"


def _output_section(status: RankStatus) -> str:
    return f"last output of rank {status.rank}:\n{_indented(status.output)}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else line for line in text.rstrip().splitlines())
