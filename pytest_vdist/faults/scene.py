"""What happens in the ranks of a fault: groups that work, a rank that fails, and the end of the others."""

from __future__ import annotations

import math
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vdist.faults.calls import DEVICE_LIMIT, BlockingCall, call_named
from pytest_vdist.faults.meeting import Meeting
from pytest_vdist.faults.waits import Ended, Limit, attempt, attempt_together
from pytest_vdist.ranks.context import current_rank, init_settings

if TYPE_CHECKING:
    from pytest_vdist.implementations.protocol import Coordinator
    from pytest_vdist.implementations.spec import ImplementationSpec
    from pytest_vdist.ranks.outcomes import RankOutcome

_INSIDE = 0.1  # seconds after which threads that were started are in their calls
_AGAIN = 30.0  # the limit of the world that comes after
_AFTER_WATCHDOG = 3.0  # seconds beyond its limit in which a watchdog has ended a process
# Seconds in which a watchdog notices what has ended, of which it tells nobody. An operation whose end it has
# not noticed when the process is stopped counts for as long as the stop.
_SEEN_BY_WATCHDOG = 1.0


@dataclass(frozen=True)
class Scene:
    """What the ranks are told. `peer` is the rank that fails, `calls` names calls for which others need it.

    `again` says whether the survivors go on in the same processes.
    """

    implementation: ImplementationSpec
    split_group: bool
    folder: str
    peer: int
    limit: Limit
    calls: tuple[str, ...]
    again: bool = True


@dataclass(frozen=True)
class Lived:
    """What a rank lived to see: the end of each of its calls, and the ranks of the world that came after."""

    ended: tuple[Ended, ...]
    ranks_again: tuple[int, ...] = ()


class Stage:
    """One rank of a scene, with groups in which every call has worked once."""

    def __init__(self, scene: Scene) -> None:
        """Make the world. Every rank calls it."""
        self.scene, self.here, self.world = scene, current_rank(), scene.implementation.load()
        self.everyone = list(range(self.here.world_size))
        self.meeting = Meeting(f"{scene.folder}/meeting", self.here.rank)
        self.meeting.gather("loaded", self.everyone)
        self.start("world", self.everyone, scene.limit.seconds)

    @property
    def is_peer(self) -> bool:
        return self.here.rank == self.scene.peer

    @property
    def survivors(self) -> list[int]:
        return [rank for rank in self.everyone if rank != self.scene.peer]

    def start(self, name: str, ranks: Sequence[int], seconds: float) -> None:
        """Make a world of some of the ranks, which all call it."""
        settings = replace(
            init_settings(f"file://{self.scene.folder}/{name}"),
            split_group=self.scene.split_group,
            timeout=seconds,
            cpu_timeout=seconds,
        )
        self.world.init(replace(settings, rank=ranks.index(self.here.rank), world_size=len(ranks)))

    def groups(self, calls: Sequence[BlockingCall]) -> dict[str, Coordinator]:
        """Return a group of all ranks for each call, in which it has worked.

        A call on the device and one on the CPU share a coordinator, so that half as many are needed.
        """
        on_device = [call for call in calls if call.limit == DEVICE_LIMIT]
        on_cpu = [call for call in calls if call.limit != DEVICE_LIMIT]
        made = [
            self.world.coordinator([self.everyone], name="group")
            for _ in range(max(len(on_device), len(on_cpu)))
        ]
        groups = {
            call.name: group for kind in (on_device, on_cpu) for call, group in zip(kind, made, strict=False)
        }
        for call in calls:
            self.make_once(call, groups[call.name])
        return groups

    def make_once(self, call: BlockingCall, group: Coordinator) -> None:
        """Make a call while all is well. A backend may connect ranks in it, by other rules than later on."""
        value = call.make(group, self.scene.peer)
        right = call.result(self.here.world_size, self.here.rank, self.scene.peer)
        assert value == right, f"{call.name} before the fault: {value!r}, not {right!r}"

    def attempt(self, calls: Iterable[tuple[str, Callable[[], Any]]]) -> tuple[Ended, ...]:
        """Make all calls at the same time, and note when, for the case that this process does not survive."""
        note_start(self.scene.folder, self.here.rank)
        return tuple(attempt_together(list(calls), self.here.device, self.scene.limit.latest + 2.0))

    def begin_again(self, ranks: Sequence[int]) -> tuple[int, ...]:
        """Destroy the world and make one of the ranks that are left; return who says to be in it."""
        if not self.scene.again:
            self.world.destroy()
            return ()
        self.meeting.gather("ended", ranks)
        self.world.destroy()
        self.meeting.gather("destroyed", ranks)  # who destroys more groups comes later
        self.start("again", ranks, _AGAIN)
        group = self.world.coordinator([list(range(len(ranks)))], name="again")
        told = tuple(group.broadcast_object(self.here.rank, src=rank) for rank in range(len(ranks)))
        self.world.destroy()
        return told


def lose_a_rank(scene: Scene, fault: str) -> Lived:
    """Let the peer exit or stop while the others wait for it, or be killed within its own calls."""
    stage = Stage(scene)
    calls = [call_named(name) for name in scene.calls]
    groups = stage.groups(calls)
    makes = [(call.name, partial(call.make, groups[call.name], scene.peer)) for call in calls]
    pids = {
        rank: int(pid)
        for rank, pid in stage.meeting.gather("ready", stage.everyone, str(os.getpid())).items()
    }
    if stage.is_peer:
        return _fail(stage, fault, makes)
    if fault == "killed":
        _await_end(pids[scene.peer])
    stage.meeting.arrive("waiting")
    ended = stage.attempt(makes)
    if fault != "stopped":
        return Lived(ended, stage.begin_again(stage.survivors))
    stage.meeting.arrive("given up")
    os.kill(pids[scene.peer], signal.SIGCONT)
    return Lived(ended, stage.begin_again(stage.everyone))


def _fail(stage: Stage, fault: str, makes: Sequence[tuple[str, Callable[[], Any]]]) -> Lived:
    if fault == "killed":
        attempt_together(makes, stage.here.device, _INSIDE)
        os.kill(os.getpid(), signal.SIGKILL)
    stage.meeting.await_ranks("waiting", stage.survivors)
    if fault == "exits":
        os._exit(7)
    # Survivors wake this process; where they do not survive, nobody else would.
    seconds = stage.scene.limit.latest if stage.scene.again else stage.scene.limit.seconds + _AFTER_WATCHDOG
    threading.Event().wait(_SEEN_BY_WATCHDOG)
    subprocess.Popen(["sh", "-c", f"sleep {seconds:g}; kill -CONT {os.getpid()}"])  # noqa: S603, S607
    os.kill(os.getpid(), signal.SIGSTOP)
    if stage.scene.again:
        stage.meeting.await_ranks("given up", stage.survivors)
    ended = stage.attempt(makes)
    return Lived(ended, stage.begin_again(stage.everyone))


def differ(scene: Scene, faults: Sequence[str]) -> dict[str, Lived]:
    """Let the peer do something else than the others, each fault in groups of its own, all at the same time.

    Returns what this rank lived to see, by fault.
    """
    stage = Stage(scene)
    parts = {fault: _parts(stage, fault) for fault in faults}
    pids = stage.meeting.gather("ready", stage.everyone, str(os.getpid()))
    at_once = [(f"{fault}/{name}", make) for fault, (make_now, _) in parts.items() for name, make in make_now]
    ended = stage.attempt(at_once)
    if scene.again:
        stage.meeting.gather("given up", stage.everyone)
    late = [(f"{fault}/{name}", make) for fault, (_, make_late) in parts.items() for name, make in make_late]
    if late and not scene.again:
        for rank in stage.survivors:
            _await_end(int(pids[rank]), scene.limit.seconds + _AFTER_WATCHDOG)
    ended += stage.attempt(late) if late else ()
    again = stage.begin_again(stage.everyone)
    by_fault: dict[str, list[Ended]] = {fault: [] for fault in faults}
    for each in ended:
        fault, _, name = each.name.partition("/")
        by_fault[fault].append(replace(each, name=name))
    return {fault: Lived(tuple(found), again) for fault, found in by_fault.items()}


Makes = list[tuple[str, Callable[[], Any]]]


def _parts(stage: Stage, fault: str) -> tuple[Makes, Makes]:
    """Return the calls that this rank makes at once, and those for when the others have given up."""
    peer = stage.scene.peer
    calls = [
        call for call in map(call_named, stage.scene.calls) if fault != "root" or call.operation in ROOTS
    ]
    if fault == "group":  # for the others it is as if the peer were late: two calls show it
        calls = [call for call in calls if call.name in {"all_reduce", "barrier"}] or calls
    groups = stage.groups(calls)
    ours: Makes = [
        (call.name, partial(call.make, groups[call.name], _root(call, fault, peer)[0])) for call in calls
    ]
    elsewhere = stage.world.coordinator([stage.everyone], name="elsewhere") if fault == "group" else None
    if elsewhere is not None:
        for call in calls:
            stage.make_once(call, elsewhere)
    if not stage.is_peer:
        return ours, []
    if fault == "late":
        return [], ours
    if fault == "gives up":
        return [("gives up", lambda: _destroy(groups.values()))], []
    if fault == "root":
        return [
            (call.name, partial(call.make, groups[call.name], _root(call, fault, peer)[1])) for call in calls
        ], []
    if elsewhere is not None:
        return [(call.name, partial(call.make, elsewhere, peer)) for call in calls], []
    assert fault == "operation", f"there is no fault {fault!r}"
    others = {call.name: other_call(call) for call in calls}
    return [
        (others[call.name].name, partial(others[call.name].make, groups[call.name], peer)) for call in calls
    ], []


ROOTS = ("broadcast", "gather", "broadcast_object", "broadcast_object_list", "broadcast_tensor_dict")


def other_call(call: BlockingCall) -> BlockingCall:
    """Return the call that the peer makes in place of `call`: on the same device, in another operation."""
    if call.limit == DEVICE_LIMIT:
        return call_named("all_reduce" if call.operation.startswith("all_gather") else "all_gather")
    return call_named("broadcast_object" if call.name == "barrier" else "barrier")


def _root(call: BlockingCall, fault: str, peer: int) -> tuple[int, int]:
    """Return whom the others and the peer take for the rank that they wait for."""
    if fault != "root":
        return peer, peer
    other = 1 if peer == 0 else 0
    return (peer, other) if call.operation == "gather" else (other, peer)


def root_of_others(call: BlockingCall, fault: str, peer: int) -> int:
    """Return whom the ranks but the peer take for the rank that they wait for."""
    return _root(call, fault, peer)[0]


def root_of_peer(call: BlockingCall, fault: str, peer: int) -> int:
    """Return whom the peer takes for the rank that all wait for."""
    return _root(call, fault, peer)[1]


def _destroy(groups: Iterable[Coordinator]) -> None:
    for group in groups:
        group.destroy()


def _await_end(pid: int, seconds: float = 30.0) -> None:
    """Wait until another process has ended, or as long as it may take."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([descriptor], [], [], seconds)
    finally:
        os.close(descriptor)


def note_start(folder: str, rank: int) -> None:
    """Note when the calls of a rank begin, on the host's clock."""
    Path(f"{folder}/start-{rank}").write_text(str(time.monotonic()), encoding="ascii")


def end_of(name: str, outcome: RankOutcome, folder: str) -> Ended:
    """Return the end of a rank's process as that of the one call that it made.

    Raises AssertionError where it ended before.
    """
    if outcome.state == "stuck":
        return Ended(name, math.inf)
    start = Path(f"{folder}/start-{outcome.rank}")
    assert start.exists(), f"rank {outcome.rank} {outcome.state} before its call of {name}: {outcome.reason}"
    started = float(start.read_text(encoding="ascii"))
    return Ended(name, outcome.monotonic - started, error=outcome.reason, kinds=("RuntimeError",))


def attempt_alone(name: str, call: Callable[[], Any], folder: str) -> Ended:
    """Make a call that may end the process."""
    note_start(folder, current_rank().rank)
    return attempt(name, call)
