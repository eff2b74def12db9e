"""What the ranks of one run have left in its folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

from pytest_vdist.torchrun.rank import STACKS_SIGNAL

_QUIET_POLLS = 5
_FAILURE = re.compile(r"rank\s*: (\d+) \(local_rank: \d+\)\s+exitcode\s*: (-?\d+)")


@dataclass(frozen=True)
class RankOutput:
    """All that one rank of torchrun has written."""

    rank: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class RankEnd:
    """How one rank failed. `monotonic`, in seconds, is known of scripts that ended by themselves."""

    rank: int
    exit_code: int
    monotonic: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Notes:
    """The notes in the folder of a run of `world_size` ranks."""

    folder: Path
    world_size: int

    def output(self) -> list[RankOutput]:
        """Return every rank's output, by rank."""
        return [
            RankOutput(rank, self._read(f"{rank}.stdout"), self._read(f"{rank}.stderr"))
            for rank in range(self.world_size)
        ]

    def agents_output(self) -> str:
        """Return what torchrun itself has written."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("agent-*.log")))

    def failures(self) -> list[RankEnd]:
        """Return the ranks that failed, the one that failed first at the front.

        Deaths by a signal come before exits: those who talk to a dead rank fail because of it.
        """
        by_rank = {
            int(rank): RankEnd(int(rank), int(code))
            for rank, code in _FAILURE.findall(self.agents_output())
            if int(code) != -signal.SIGTERM  # torchrun ends the others so
        }
        for rank in range(self.world_size):
            note = self._read(f"{rank}.failed")
            if note:
                told = json.loads(note)
                by_rank[rank] = RankEnd(rank, told["exit_code"], told["time"], told["error"])
        return sorted(by_rank.values(), key=lambda end: (end.exit_code >= 0, end.monotonic or 0.0, end.rank))

    def all_started(self) -> bool:
        return len(list(self.folder.glob("*.pid"))) == self.world_size

    def running(self) -> dict[int, int]:
        """Return the process ids of the ranks that run, by rank."""
        found = {int(path.read_text()): int(path.stem) for path in self.folder.glob("*.pid")}
        return {rank: pid for rank, pid in sorted(found.items()) if _runs(pid)}

    def stacks(self, patience: float) -> dict[int, str]:
        """Ask the ranks that run for their stacks; return them after `patience` seconds at most, by rank."""
        running = self.running()
        for pid in running.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, STACKS_SIGNAL)
        before: dict[int, str] = {}
        quiet = threading.Event()
        for _ in range(_QUIET_POLLS):
            quiet.wait(patience / _QUIET_POLLS)
            now = {rank: self._read(f"{rank}.stacks") for rank in running}
            if now == before and all(now.values()):
                break
            before = now
        return before

    def kill(self) -> None:
        """End every rank, with the processes that it started in its group."""
        for path in self.folder.glob("*.pid"):
            if self._is_ours(int(path.stem)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(int(path.stem), signal.SIGKILL)

    def _is_ours(self, pid: int) -> bool:
        """Tell whether nobody else has got the number since. A group keeps the number of a dead leader."""
        try:
            return os.fsencode(self.folder) in Path(f"/proc/{pid}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return True
        except PermissionError:
            return False

    def _read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}
