"""Two machines, played by namespaces of this one: each has a network interface, a host name and /dev/shm."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INTERFACE = "machines"
HOSTS = ("first-machine", "second-machine")
PORT = "29400"  # nobody else is in these namespaces
_DEADLINE = 60.0
_PROGRAMS = ("unshare", "nsenter", "ip", "mount", "sh")
_PREPARE = f"""
mount -t tmpfs none /dev/shm && echo $0 > /proc/sys/kernel/hostname && ip link set lo up && echo ready &&
read line && ip address add $1/30 dev {INTERFACE} && ip link set {INTERFACE} up && echo ready && exec cat
"""


class CannotPlayError(Exception):
    """Raised where this machine makes no such namespaces; the text says why."""


@dataclass(frozen=True)
class Machine:
    """One of the two, as the process that holds its namespaces."""

    number: int
    address: str
    holder: int

    def command(self, *words: str) -> list[str]:
        """Return the command that runs another one there."""
        return ["nsenter", f"--target={self.holder}", "--net", "--uts", "--mount", "--wd=.", *words]

    def torchrun(self, ranks: int, *words: str) -> list[str]:
        """Return the command of torchrun with which both machines start `python -m words`."""
        options = [f"--nnodes={len(HOSTS)}", f"--node-rank={self.number}", f"--nproc-per-node={ranks}"]
        meeting = ["--master-addr=10.231.230.1", f"--master-port={PORT}"]
        module = [sys.executable, "-m", "torch.distributed.run", *options, *meeting, "-m", *words]
        return self.command(*module)

    def set_link(self, state: str) -> None:
        """Set the interface `up` or `down`."""
        subprocess.run(self.command("ip", "link", "set", INTERFACE, state), check=True, timeout=_DEADLINE)

    def processes(self) -> set[int]:
        """Return the processes that are there, but for the holder."""
        own = os.readlink(f"/proc/{self.holder}/ns/net")
        found = set()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and os.readlink(entry / "ns" / "net") == own:
                    found.add(int(entry.name))
        return found - {self.holder}

    def processes_left(self, seconds: float = 10.0) -> set[int]:
        """Return the processes that are still there after so long; some may be about to end."""
        until = time.monotonic() + seconds
        while (found := self.processes()) and time.monotonic() < until:
            threading.Event().wait(0.05)
        return found


@contextlib.contextmanager
def two_machines() -> Iterator[list[Machine]]:
    """Set two machines up that reach each other. Raises CannotPlayError where that is not possible."""
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise CannotPlayError(f"this machine has no {', '.join(missing)}")
    with contextlib.ExitStack() as stack:
        addresses = [f"10.231.230.{number + 1}" for number in range(len(HOSTS))]
        holders = [
            stack.enter_context(_holder(host, address))
            for host, address in zip(HOSTS, addresses, strict=True)
        ]
        for each in holders:
            _expect_ready(each)
        first, second = (str(each.pid) for each in holders)
        wire = ["ip", "link", "add", INTERFACE, "netns", first, "type", "veth", "peer", "name", INTERFACE]
        made = subprocess.run(
            [*wire, "netns", second], capture_output=True, text=True, check=False, timeout=_DEADLINE
        )
        if made.returncode:
            raise CannotPlayError(f"this machine connects no namespaces: {made.stderr.strip()}")
        for each in holders:
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
            _expect_ready(each)
        numbered = enumerate(zip(addresses, holders, strict=True))
        yield [Machine(number, address, holder.pid) for number, (address, holder) in numbered]


@contextlib.contextmanager
def sessions_on(
    machines: Sequence[Machine],
    arguments: Sequence[str],
    folder: Path,
    *,
    ranks: int = 2,
    environment: Mapping[str, str] | None = None,
) -> Iterator[list[subprocess.Popen[str]]]:
    """Run `torchrun … -m pytest arguments` on each machine, in `folder`; nothing of it is left after."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VDIST_", "PYTEST_"))}
    started = [
        subprocess.Popen(
            each.torchrun(ranks, "pytest", "-p", "no:cacheprovider", *arguments),
            cwd=folder,
            env={**clean, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for each in machines
    ]
    try:
        yield started
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.communicate(timeout=_DEADLINE)


@contextlib.contextmanager
def _holder(host: str, address: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process in namespaces of its own, which ends when its standard input does."""
    command = ["unshare", "--net", "--uts", "--mount", "sh", "-c", _PREPARE, host, address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        yield process
        process.communicate(timeout=_DEADLINE)


def _expect_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], _DEADLINE)[0]:
        process.kill()
        raise TimeoutError(f"a machine was not set up within {_DEADLINE:g} seconds: {process.args!r}")
    if process.stdout.readline() != "ready\n":
        _, errors = process.communicate(timeout=_DEADLINE)
        raise CannotPlayError(f"this machine makes no namespaces: {errors.strip() or 'no reason given'}")
