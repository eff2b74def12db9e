"""One start of torchrun, from its first process to the last: deadline, notes, and no process left."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_vdist.torchrun import agent, failures, rank
from pytest_vdist.torchrun.notes import Notes, RankOutput

_STACKS_PATIENCE = 1.0
_GRACE = 10.0
_START_TIMEOUT = 120.0
_START_POLL = 0.05


@dataclass(frozen=True)
class Launch:
    """What to start: `nnodes` agents of torchrun on this machine, each with `nproc_per_node` ranks.

    `environments` has one for each agent. `timeout` is in seconds, from when all ranks have started.
    """

    script: Path
    arguments: Sequence[str]
    nproc_per_node: int
    environments: Sequence[Mapping[str, str]]
    timeout: float

    @property
    def world_size(self) -> int:
        return self.nproc_per_node * len(self.environments)

    def run(self) -> list[RankOutput]:
        """Run to the end and return the output of every rank.

        Raises TorchrunError if a rank or torchrun fails, or at the deadline. No process is left.
        """
        __tracebackhide__ = True
        with tempfile.TemporaryDirectory(prefix="vdist-torchrun-") as folder:
            notes = Notes(Path(folder), self.world_size)
            with self._started(notes) as agents:
                in_time = _wait(agents, notes, self.timeout)
                stacks = {} if in_time else notes.stacks(_STACKS_PATIENCE)
            outputs = notes.output()
            if not in_time:
                raise failures.hung(self.timeout, outputs, stacks, notes.agents_output())
            code = next((process.returncode for process in agents if process.returncode), 0)
            if code:
                raise failures.failed(code, notes.failures(), outputs, notes.agents_output())
            return outputs

    @contextlib.contextmanager
    def _started(self, notes: Notes) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Start the agents; at the end of the context none of their processes is left."""
        agents: list[subprocess.Popen[bytes]] = []
        with contextlib.ExitStack() as stack:
            lifeline, held = os.pipe()
            stack.callback(os.close, held)
            stack.callback(_end, agents, notes)
            meeting = stack.enter_context(_meeting(len(self.environments)))
            try:
                for number, environment in enumerate(self.environments):
                    agents.append(self._start(number, environment, meeting, notes.folder, lifeline))
            finally:
                os.close(lifeline)
            yield agents

    def _start(
        self, number: int, environment: Mapping[str, str], meeting: Sequence[str], folder: Path, lifeline: int
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, agent.__file__, str(lifeline), str(folder), *meeting]
        command += [f"--nproc-per-node={self.nproc_per_node}", "--max-restarts=0", rank.__file__]
        with (folder / f"agent-{number}.log").open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - the test's own script
                [*command, str(self.script), *self.arguments],
                env={**environment, rank.FOLDER: str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[lifeline],
            )


@contextlib.contextmanager
def _meeting(nodes: int) -> Iterator[list[str]]:
    """Give the arguments by which agents find each other. One alone takes a free port by itself."""
    if nodes == 1:
        yield ["--standalone"]
        return
    from pytest_vdist.ranks import _compat  # noqa: PLC0415 - imports torch, which one agent does not need

    store = _compat.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield [
        f"--nnodes={nodes}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{store.port}",
        "--rdzv-conf=is_host=false",
        "--rdzv-id=vdist",
    ]
    del store


def _wait(agents: Sequence[subprocess.Popen[bytes]], notes: Notes, timeout: float) -> bool:
    """Wait for all agents, and tell whether they ended in time. After a failed one others have 10 seconds.

    Ranks have two minutes to start; `timeout` begins when the last one has.
    """
    started, deadline = False, time.monotonic() + _START_TIMEOUT
    waiting = {os.pidfd_open(process.pid): process for process in agents}
    poll = select.poll()
    try:
        for descriptor in waiting:
            poll.register(descriptor, select.POLLIN)
        left = len(waiting)
        failed = False
        while left:
            if not started and notes.all_started():
                started, deadline = True, time.monotonic() + timeout
            patience = max(0.0, deadline - time.monotonic())
            ended = poll.poll(1000 * (patience if started else min(patience, _START_POLL)))
            if not ended and time.monotonic() >= deadline:
                return failed
            for descriptor, _ in ended:
                poll.unregister(descriptor)
                left -= 1
                if waiting[descriptor].wait() and not failed:
                    failed, started = True, True
                    deadline = min(deadline, time.monotonic() + _GRACE)
        return True
    finally:
        for descriptor in waiting:
            os.close(descriptor)


def _end(agents: Sequence[subprocess.Popen[bytes]], notes: Notes) -> None:
    for process in agents:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    notes.kill()
