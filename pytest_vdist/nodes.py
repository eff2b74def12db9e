"""The machines of a session: which part this process plays, who has come, and what needs several nodes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vdist import options
from pytest_vdist.role import MARK, Role, RoleError, forget, read_role
from pytest_vdist.run_log import run_log_of
from pytest_vdist.suite_items import is_suite_path

if TYPE_CHECKING:
    from pytest_vdist.ranks.rank import RankLauncher
    from pytest_vdist.ranks.torchrun.controller import Controller, Member
    from pytest_vdist.ranks.torchrun.own_ranks import OwnRanks

MARKER = "vdist_nodes"
_LAST_WORDS = 3.0  # seconds in which the test that has lost a rank can be reported

_NOTICE_OF_LOSS = 0.5
_WANT = "not run: needs other nodes: "


@dataclass(frozen=True)
class Topology:
    """The nodes of the session: host names by node, and for each rank its node. Rank n runs at place n."""

    hosts: tuple[str, ...]
    node_of_rank: tuple[int, ...]

    @property
    def ranks_per_node(self) -> tuple[int, ...]:
        return tuple(self.node_of_rank.count(node) for node in range(len(self.hosts)))

    def nodes_of(self, world_size: int) -> int:
        """Return over how many nodes the ranks of a world are."""
        return len(set(self.node_of_rank[:world_size])) or 1

    def __str__(self) -> str:
        counts = zip(self.hosts, self.ranks_per_node, strict=True)
        return ", ".join(f"{host} ({count} rank{'s' if count > 1 else ''})" for host, count in counts)


@dataclass(frozen=True)
class Nodes:
    """How many nodes a test needs, as its marker says."""

    min: int = 1
    max: int | None = None

    def allows(self, count: int) -> bool:
        return self.min <= count and (self.max is None or count <= self.max)

    def __str__(self) -> str:
        if self.max is None:
            return f"{self.min} nodes or more"
        if self.min == self.max:
            return f"all ranks on {self.max} node{'s' if self.max > 1 else ''}"
        return f"from {self.min} to {self.max} nodes"


@pytest.fixture(scope="session")
def topology(request: pytest.FixtureRequest) -> Topology:
    """Give the nodes that torchrun has started the session on; there are none where it has not."""
    return topology_of(request.config)


@dataclass
class Session:
    """What a session knows that torchrun has started. `members` are there when all have come."""

    role: Role
    controller: Controller | None = None
    own_ranks: OwnRanks | None = None
    members: Sequence[Member] = ()
    finishing: bool = False
    overdue: bool = False
    loss: str = ""
    lost: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)


_SESSION = pytest.StashKey[Session]()


def session_of(config: pytest.Config) -> Session | None:
    """Return what torchrun has started, None in a session that it has not."""
    return config.stash.get(_SESSION, None)


def topology_of(config: pytest.Config) -> Topology:
    """Return the nodes of the session: this machine alone where torchrun has not started it."""
    session = session_of(config)
    if session is None or not session.members:
        return Topology((), ())
    hosts = {member.node: member.host for member in session.members}
    numbers = {node: number for number, node in enumerate(sorted(hosts))}
    return Topology(
        tuple(hosts[node] for node in sorted(hosts)),
        tuple(numbers[member.node] for member in session.members),
    )


def serve_if_rank(config: pytest.Config) -> int | None:
    """Play the part that torchrun gives this process: return the exit code of one that serves the controller.

    Returns None in the controller, and without torchrun. Raises pytest.UsageError where the variables or the
    command line make no such session.
    """
    role = _role(config)
    if role is None:
        return None
    forget(os.environ)
    if config.option.help or config.option.version:
        return None if role.is_controller else int(pytest.ExitCode.OK)
    workers = getattr(config.option, "numprocesses", None)
    if workers:
        raise pytest.UsageError(
            f"pytest-xdist can't be used inside torchrun, got -n {workers} at RANK={role.rank}: "
            f"the {role.world_size} processes of torchrun serve one session; leave -n out"
        )
    chosen = options.read_options(config, os.environ)
    _require_processes(chosen, role)
    if role.is_controller:
        config.stash[_SESSION] = Session(role)
        return None
    return _serve(role, chosen)


def process_count(config: pytest.Config) -> int | None:
    """Return how many processes torchrun has started for the session, None without torchrun."""
    session = session_of(config)
    return None if session is None else session.role.world_size


def join(session: pytest.Session) -> None:
    """Wait for all processes of torchrun. Raises pytest.UsageError naming those that do not come in time."""
    state = session_of(session.config)
    if state is None:
        return
    from pytest_vdist.ranks.torchrun.controller import Controller, JoinError  # noqa: PLC0415 - imports torch
    from pytest_vdist.ranks.torchrun.own_ranks import OwnRanks  # noqa: PLC0415

    chosen = options.options_of(session.config)
    patience = chosen.join_timeout
    try:
        state.controller = Controller(state.role, patience)
        state.members = state.controller.join(patience)
    except (JoinError, OSError) as error:
        raise pytest.UsageError(str(error)) from None
    run_log_of(session.config).nodes_of = topology_of(session.config).nodes_of
    state.own_ranks = OwnRanks(state.role, chosen.backend_named)
    signal.signal(signal.SIGTERM, lambda _number, _frame: _leave_at_once(state))
    state.controller.watch(lambda text: _end(session, state, text))


def launcher_of(config: pytest.Config, backend: str) -> RankLauncher | None:
    """Return what starts ranks at torchrun's processes, None without torchrun."""
    session = session_of(config)
    if session is None or session.controller is None or session.own_ranks is None:
        return None
    from pytest_vdist.ranks.torchrun.launcher import TorchrunLauncher  # noqa: PLC0415 - imports torch

    return TorchrunLauncher(backend, session.controller, session.members, session.own_ranks)


def finish(config: pytest.Config) -> None:
    """Let nothing interrupt the reports any more."""
    session = session_of(config)
    if session is not None:
        session.finishing = True


def leave(config: pytest.Config) -> None:
    """Send torchrun's processes home."""
    session = session_of(config)
    if session is not None:
        session.finished.set()
        if session.controller is not None:
            session.controller.close()
        if session.own_ranks is not None:
            session.own_ranks.close()


def wanted_nodes(definition: Any, fixtures: Sequence[str] = ()) -> Nodes:
    """Return how many nodes a test needs; one of the suites that has files of its own runs on one.

    Raises a collection error for a marker that makes no sense.
    """
    marker = definition.get_closest_marker(MARKER)
    if marker is None:
        return Nodes(max=1) if "tmp_path" in fixtures and is_suite_path(definition.path) else Nodes()
    try:
        wanted = Nodes(*marker.args, **marker.kwargs)
    except TypeError as error:
        raise _bad_marker(definition, f"takes min and max by name: {error}") from None
    for name, value in (("min", wanted.min), ("max", wanted.max)):
        if not (name == "max" and value is None) and (type(value) is not int or value < 1):
            raise _bad_marker(definition, f"{name} must be a whole number from 1, got {value!r}")
    if wanted.max is not None and wanted.max < wanted.min:
        raise _bad_marker(definition, f"max must be at least min, got min={wanted.min}, max={wanted.max}")
    return wanted


def skip_for_want_of_nodes(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Mark the tests as not run that need more nodes than there are."""
    for item in items:
        wanted = wanted_nodes(item)
        if wanted.min > max(1, len(topology_of(config).hosts)):
            item.add_marker(pytest.mark.skip(reason=want_of_nodes(wanted, config)))


def want_of_nodes(wanted: Nodes, config: pytest.Config) -> str:
    """Return the reason for a test that cannot run on the nodes of this session."""
    topology = topology_of(config)
    return f"{_WANT}{wanted}, the session has {topology if topology.hosts else 'this machine'}"


def header_lines(config: pytest.Config) -> list[str]:
    """Return which nodes there are; nothing without torchrun."""
    topology = topology_of(config)
    return [f"vdist: nodes {topology} [torchrun]"] if topology.hosts else []


def summary_lines(config: pytest.Config, skipped: Sequence[pytest.TestReport]) -> list[str]:
    """Say on which nodes the tests ran, and how many did not for want of nodes."""
    topology = topology_of(config)
    missed = sum(_WANT in str(report.longrepr) for report in skipped)
    lines = [f"vdist: ran on {topology}"] if topology.hosts else []
    if missed:
        lines.append(f"vdist: not run for want of nodes: {missed} test{'s' * (missed > 1)}")
    return lines


def _role(config: pytest.Config) -> Role | None:
    """Return the role of this process; None where nobody asks for one."""
    launcher = options.text_of("launcher", config, os.environ)
    if launcher not in {"auto", "torchrun"} or (launcher == "auto" and MARK not in os.environ):
        return None
    if launcher == "auto" and not options.read_options(config, os.environ).used:
        return None
    try:
        return read_role(os.environ)
    except RoleError as error:
        raise pytest.UsageError(str(error)) from None


def _require_processes(chosen: options.Options, role: Role) -> None:
    """Raise pytest.UsageError for a world size that is asked for, and torchrun has too few processes for."""
    too_large = [size for size in chosen.world_sizes if size > role.world_size]
    if chosen.is_given("world_sizes") and too_large:
        raise pytest.UsageError(
            f"world size must be at most the number of torchrun's processes, here {role.world_size}, "
            f"got {too_large[0]} from {chosen.origin('world_sizes')}; start more with --nnodes and "
            f"--nproc-per-node, or pass --vdist-world-sizes={role.world_size}"
        )


def _serve(role: Role, chosen: options.Options) -> int:
    from pytest_vdist.ranks.torchrun import agent  # noqa: PLC0415 - imports torch

    try:
        agent.serve(role, chosen.backend_named, chosen.join_timeout)
    except OSError as error:
        sys.stderr.write(f"vdist: RANK={role.rank} on node {role.node} ends: {error}\n")
        return int(pytest.ExitCode.INTERRUPTED)
    return int(pytest.ExitCode.OK)


def _end(session: pytest.Session, state: Session, text: str) -> None:
    """End the session after the test that runs, or in its midst if that takes long."""
    state.loss = text
    session.shouldstop = text
    state.lost.set()
    if not state.finished.wait(_LAST_WORDS):
        state.overdue = True
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _leave_at_once(state: Session) -> None:
    """End the session where it is, unless it ends already, or reports first which rank it has lost.

    torchrun ends all its processes of a node when it notices that one has ended, a moment after this one.
    """
    if state.finishing or (state.lost.wait(_NOTICE_OF_LOSS) and not state.overdue):
        return
    raise pytest.exit.Exception(state.loss or "ended by SIGTERM")


def _bad_marker(definition: Any, problem: str) -> pytest.Collector.CollectError:
    return pytest.Collector.CollectError(f"marker {MARKER} on {definition.nodeid}: {problem}")
