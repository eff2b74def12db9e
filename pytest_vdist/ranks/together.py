"""Several teams that run at the same time, each in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pytest_vdist.ranks.debugger import Ask
from pytest_vdist.ranks.messages import Run
from pytest_vdist.ranks.team import Result, Team


def execute_together(runs: Sequence[tuple[Team, Run]], timeout: float, ask: Ask) -> list[Result]:
    """Run on every team, all at once, at most `timeout` seconds, and return what came of each.

    A failure, in a rank or a team, shortens the time of no other. One rank is debugged at a time. Raises
    RankLostError if a run did not begin.
    """
    terminal = threading.Lock()

    def ask_alone(text: str) -> str:
        with terminal:
            return ask(text)

    with ThreadPoolExecutor(len(runs), "vdist-team") as threads:
        futures = [
            threads.submit(team.execute, run, timeout, ask_alone, to_the_end=True) for team, run in runs
        ]
        try:
            return [future.result() for future in futures]
        except BaseException:  # such as Ctrl-C: without their ranks the threads end at once
            for team, _ in runs:
                team.end_ranks()
            raise
