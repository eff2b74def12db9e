"""What a test did on ranks: its runs, as properties of its reports and in its outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from pytest_vdist.certificate.outcomes import RANKS_PER_DEVICE

WORLD_SIZE = "vdist.world_size"
NODES = "vdist.nodes"
RUNS = "vdist.runs"
SECONDS = "vdist.seconds_on_ranks"

Status = tuple[str, str, str | tuple[str, dict[str, bool]]]


@dataclass(frozen=True)
class RunRecord:
    """One run of a function on ranks, from its dispatch to the last answer."""

    world_size: int
    seconds: float
    nodes: int = 1
    ranks_per_device: int = 1


@dataclass
class RunLog:
    """The runs of the session that no report has counted yet."""

    pending: list[RunRecord]
    session_finished: bool = False
    nodes_of: Callable[[int], int] = lambda _size: 1

    def add(self, world_size: int, seconds: float, ranks_per_device: int = 1) -> None:
        nodes = self.nodes_of(world_size)
        self.pending.append(RunRecord(world_size, seconds, nodes, ranks_per_device))


_LOG = pytest.StashKey[RunLog]()
_RUNS_OF_ITEM = pytest.StashKey[list[RunRecord]]()


def start(config: pytest.Config) -> None:
    """Begin the log of a session."""
    config.stash[_LOG] = RunLog([])


def run_log_of(config: pytest.Config) -> RunLog:
    """Return the log of the session, which is there from pytest_configure on."""
    return config.stash[_LOG]


def attribute_runs(item: pytest.Item) -> None:
    """Attribute the runs since the last report to a test, before a report of it is made.

    Its properties count all its phases, and a report has those up to its own. Workers of xdist send them
    along with the report, and JUnit files take those of the last one.
    """
    log = run_log_of(item.config)
    if log.pending:
        runs = item.stash.setdefault(_RUNS_OF_ITEM, [])
        runs += log.pending
        log.pending = []
        properties = properties_of(runs)
        item.user_properties[:] = [
            (name, value) for name, value in item.user_properties if name not in properties
        ] + list(properties.items())


def properties_of(runs: Sequence[RunRecord]) -> dict[str, object]:
    """Return world sizes in ascending order, separated by commas, and the most nodes that one was over.

    Then the number of runs, and seconds on ranks; and how many ranks shared a device, where some did.
    """
    sizes = sorted({run.world_size for run in runs})
    sharing = max(run.ranks_per_device for run in runs)
    return {
        WORLD_SIZE: ",".join(map(str, sizes)),
        NODES: max(run.nodes for run in runs),
        RUNS: len(runs),
        SECONDS: round(sum(run.seconds for run in runs), 6),
        **({RANKS_PER_DEVICE: sharing} if sharing > 1 else {}),
    }


def finish(config: pytest.Config) -> None:
    """Leave the outcomes as they are from now on: the summary's lines are read by programs."""
    run_log_of(config).session_finished = True


def with_runs(
    status: Status, report: pytest.TestReport | pytest.CollectReport, config: pytest.Config
) -> Status:
    """Return what pytest shows for a report, its long word with the runs: `PASSED (2 ranks, 3 ms)`."""
    category, letter, word = status
    if not word or run_log_of(config).session_finished:
        return status
    runs = description(dict(getattr(report, "user_properties", ())))
    if not runs:
        return status
    if isinstance(word, tuple):
        return category, letter, (f"{word[0]} ({runs})", word[1])
    return category, letter, f"{word} ({runs})"


def description(properties: dict[str, object]) -> str:
    """Return the properties of a report in words, `2, 4 ranks, 3 ms`; "" for those of a test without runs."""
    sizes, seconds = properties.get(WORLD_SIZE), properties.get(SECONDS)
    if not isinstance(sizes, str) or not isinstance(seconds, int | float):
        return ""
    ranks = "1 rank" if sizes == "1" else f"{sizes.replace(',', ', ')} ranks"
    nodes = properties.get(NODES, 1)
    on_nodes = "" if nodes == 1 else f" on {nodes} nodes"
    sharing = properties.get(RANKS_PER_DEVICE, 1)
    on_devices = "" if sharing == 1 else f", {sharing} on a device"
    return f"{ranks}{on_nodes}{on_devices}, {duration_text(seconds)}"


def duration_text(seconds: float) -> str:
    """Return a time as one reads it: 0.4 ms, 3 ms, 250 ms, 1.2 s, 75 s."""
    if seconds < 0.00095:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
