"""How each rank of a run ended, for runs in which ranks are lost on purpose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytest_vdist.ranks import wire
from pytest_vdist.ranks.failures import RankStatus, State, whereabouts
from pytest_vdist.ranks.team import Result


@dataclass(frozen=True)
class RankOutcome:
    """How one rank ended.

    `state` is "returned", with the `value`; "raised", "skipped" or "died", where `reason` is the exception's
    type and message, or the signal or exit code; or "stuck" for a rank that was still running at the end,
    where `reason` says in or after which collective. `monotonic` is when it raised or died, in seconds on the
    host's clock `time.monotonic()`.
    """

    rank: int
    state: str
    value: Any = None
    reason: str = ""
    monotonic: float = 0.0


def outcomes_of(result: Result) -> list[RankOutcome]:
    """Return the outcome of every rank, in order."""
    if result.failure is None:
        states = {rank: RankStatus(rank, State.RETURNED, 0.0) for rank in range(len(result.replies))}
    else:
        states = {status.rank: status for status in result.failure.statuses}
    return [_outcome(states[rank], result) for rank in sorted(states)]


def _outcome(status: RankStatus, result: Result) -> RankOutcome:
    reply = result.replies[status.rank]
    if status.state is State.RETURNED and reply is not None:
        return RankOutcome(status.rank, status.state.value, wire.load_result(reply.value))
    reason = whereabouts(status) if status.state is State.STUCK else status.reason
    if status.raised is not None:
        reason = f"{status.raised.type_name}: {status.raised.message}"
    return RankOutcome(status.rank, status.state.value, None, reason, status.monotonic)
