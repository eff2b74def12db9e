"""Several teams that run at the same time."""

from __future__ import annotations

import selectors
import time
from collections.abc import Sequence

from pytest_vdist.ranks.debugger import Ask
from pytest_vdist.ranks.gathering import Gathering
from pytest_vdist.ranks.messages import Run
from pytest_vdist.ranks.team import Result, Team


def execute_side_by_side(runs: Sequence[tuple[Team, Run]], timeout: float, ask: Ask) -> list[Result]:
    """Run on every team, all at once, at most `timeout` seconds, and return what came of each.

    A failure shortens the time of nobody else. Failed teams are killed already, and all of them where this
    raises: RankLostError if a run did not begin. The time in which somebody debugs a rank does not count.
    """
    try:
        deadline = time.monotonic() + timeout
        gatherings = [team.begin(run, ask, to_the_end=True) for team, run in runs]
        _await_all(gatherings, deadline)
        return [
            team.conclude(run, gathering, timeout)
            for (team, run), gathering in zip(runs, gatherings, strict=True)
        ]
    except BaseException:
        for team, _ in runs:
            team.kill()
        raise


def _await_all(gatherings: Sequence[Gathering], deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        for gathering in gatherings:
            selector.register(gathering, selectors.EVENT_READ)
        while not all(gathering.complete for gathering in gatherings):
            talked = sum(gathering.talked for gathering in gatherings)
            ready = selector.select(max(0.0, deadline + talked - time.monotonic()))
            if not ready:
                return
            for key, _ in ready:
                key.fileobj.receive(0.0)  # type: ignore[union-attr]
