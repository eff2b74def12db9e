"""Other sessions on this machine: those that are at work, and what an ended one has left."""

from __future__ import annotations

import os
import select
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_vdist.doctor.findings import Finding

_FORK_SERVER = "multiprocess.forkserver"
_OURS = "pytest_vdist.ranks.worker"
_LEASE = "@pytest-vdist/"
# A controller is a Python program or a console script; a process whose parent has ended gets init for one.
_CONTROLLERS = ("python", "pytest", "py.test", "vdist")


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    command: str

    @property
    def is_ours(self) -> bool:
        """Whether it is a fork server or one of its ranks: a fork keeps its parent's command line."""
        return self._program.startswith("python") and _FORK_SERVER in self.command and _OURS in self.command

    @property
    def may_be_controller(self) -> bool:
        return self._program.startswith(_CONTROLLERS) and not self.is_ours

    @property
    def _program(self) -> str:
        return self.command.partition(" ")[0].rpartition("/")[2]


def leftovers(processes: Iterable[Process], still_alive: Callable[[list[int]], list[int]]) -> Finding:
    """Judge which rank processes have lost their session: none of their ancestors can be its controller.

    `still_alive` gives those that stay, as a session that has just ended may be taking them along.
    """
    known = {process.pid: process for process in processes}
    controllers = {process.pid: _controller(process, known) for process in known.values() if process.is_ours}
    lost = still_alive(sorted(pid for pid, controller in controllers.items() if controller is None))
    if lost:
        pids = " ".join(map(str, lost))
        problem = f"sessions that have ended left processes: {pids}"
        return Finding("leftover processes", str(len(lost)), problem, f"kill -9 {pids}")
    at_work = len({controller for controller in controllers.values() if controller is not None})
    return Finding("leftover processes", f"none; sessions at work: {at_work}" if at_work else "none")


def still_alive(pids: list[int], patience: float = 1.0) -> list[int]:
    """Return those that do not end within `patience` seconds."""
    deadline = time.monotonic() + patience
    return [pid for pid in pids if not _ends(pid, deadline)]


def running_processes(proc: Path = Path("/proc")) -> Iterator[Process]:
    """Yield the processes that this user may see; those that end meanwhile are left out."""
    for name in os.listdir(proc):
        if name.isdecimal():
            try:
                status = (proc / name / "stat").read_text(errors="replace").rpartition(")")[2].split()
                command = (proc / name / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            yield Process(int(name), int(status[1]), command)


def leases(unix_sockets: str, user: int) -> Finding:
    """Describe which devices this user's sessions have leased, from the text of /proc/net/unix.

    A lease is named after kind and device, and one that is shared after its share too.
    """
    names = [line.split()[-1] for line in unix_sockets.splitlines() if f" {_LEASE}{user}/" in line]
    slots = {tuple(name.split("/")[2:4]) for name in names if not name.endswith("/turnstile")}
    held = Counter(slot[0] for slot in slots)
    value = ", ".join(f"{count} of {kind}" for kind, count in sorted(held.items()))
    return Finding("leased devices", value or "none")


def _controller(process: Process, known: dict[int, Process]) -> int | None:
    ancestor: Process | None = process
    while ancestor is not None and ancestor.is_ours:
        ancestor = known.get(ancestor.parent)
    return ancestor.pid if ancestor is not None and ancestor.may_be_controller else None


def _ends(pid: int, deadline: float) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0])
    finally:
        os.close(descriptor)
