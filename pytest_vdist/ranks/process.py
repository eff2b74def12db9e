"""The controller's end of one rank process: start it, watch it, ask for its stack, end it."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import signal
import time
from typing import Any

from multiprocess import reduction
from multiprocess.connection import wait

from pytest_vdist.ranks import _compat, failures, stacks, wire, worker
from pytest_vdist.ranks.ledger import LEDGER_BYTES, LedgerPage, LedgerReading
from pytest_vdist.ranks.messages import Question, Reply

_EXIT_PATIENCE = 1.0
_STACKS_PATIENCE = 0.5
_STACKS_QUIET = 0.05
_OUTPUT_KEPT = 1 << 20
_LAST_OUTPUT_LINES = 40
# What C++ says of the exception that ends a process; frames of two languages may follow it.
_CAUSE = re.compile(r"terminate called|what\(\):|Watchdog caught")
_CAUSE_LINES = 6


class RankProcess:
    """One rank as its controller sees it. Its resources are anonymous: a crash leaves nothing behind."""

    def __init__(self, context: Any, assignment: worker.Assignment) -> None:
        self.rank = assignment.rendezvous.rank
        self.connection, far_end = context.Pipe()
        lifeline, self._lifeline = os.pipe()
        self._stacks, stacks_end = os.pipe()
        ledger = _memory_file("ledger")
        os.ftruncate(ledger, LEDGER_BYTES)
        self._ledger = LedgerPage(mmap.mmap(ledger, LEDGER_BYTES))
        self._output = {name: _memory_file(name) for name in ("stdout", "stderr")}
        self._output_read = dict.fromkeys(self._output, 0)
        link = worker.Link(
            connection=far_end,
            lifeline=_Inherited(lifeline),
            ledger=_Inherited(ledger),
            stdout=_Inherited(self._output["stdout"]),
            stderr=_Inherited(self._output["stderr"]),
            stacks=_Inherited(stacks_end),
        )
        try:
            with _compat.hidden_main_module():
                self._process = context.Process(target=worker.rank_main, args=(link, assignment), daemon=True)
                self._process.start()
        finally:
            far_end.close()
            for descriptor in (lifeline, ledger, stacks_end):
                os.close(descriptor)

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the process has ended."""
        return int(self._process.sentinel)

    @property
    def sources(self) -> tuple[Any, ...]:
        return self.connection, self.sentinel

    def send(self, message: bytes) -> None:
        self.connection.send_bytes(message)

    def poll(self, seconds: float) -> bool:
        return bool(self.connection.poll(seconds))

    def ended(self) -> bool:
        return bool(wait([self.sentinel], 0))

    def exit_text(self) -> str:
        """Say how the process ended. Its pipes close a moment before its exit code is there."""
        self._process.join(_EXIT_PATIENCE)
        return failures.exit_text(self._process.exitcode)

    def receive(self, source: Any) -> Reply | Question | None:
        """Return the message that has come in; None if there is none, because the process has ended."""
        data = self.receive_bytes(source)
        message: Reply | Question | None = None if data is None else wire.load_message(data)
        return message

    def receive_bytes(self, source: Any) -> bytes | None:
        """Return the message as it came; an ended rank may have left one.

        A child of a rank may hold the connection open, so that the end of the process alone tells of it.
        """
        if source == self.sentinel and not self.connection.poll():
            return None
        try:
            return bytes(self.connection.recv_bytes())
        except (EOFError, OSError):
            return None

    def read_ledger(self) -> LedgerReading:
        """Return which collectives the rank has entered, dead or alive."""
        return self._ledger.read()

    def new_output(self, name: str) -> str:
        """Return what the rank wrote to `stdout` or `stderr` since the last call."""
        descriptor, start = self._output[name], self._output_read[name]
        size = os.fstat(descriptor).st_size
        if size == start:
            return ""
        text = os.pread(descriptor, size - start, start).decode(errors="replace")
        self._output_read[name] = size
        if size > _OUTPUT_KEPT:
            os.ftruncate(descriptor, 0)
            self._output_read[name] = 0
        return text

    def last_output(self) -> str:
        """Return the last lines that the rank wrote to either stream and nobody has read."""
        return last_lines(self.new_output("stdout") + self.new_output("stderr"))

    def stack(self) -> str:
        """Return the Python stack of every thread, or why it can't be had."""
        if self.ended():
            return ""
        state = self._kernel_state()
        if state in {"T", "t"}:
            return "the process is stopped (SIGSTOP), its stack can't be had"
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, worker.STACKS_SIGNAL)
        dump = _read_until_quiet(self._stacks)
        if dump:
            return stacks.readable(dump)
        return f"the process did not answer (its state in the kernel is {state or 'not known'})"

    def hang_up(self) -> None:
        """Let an idle rank end by itself."""
        with contextlib.suppress(OSError):
            self.connection.close()

    def kill(self) -> None:
        """End the process and what it started, now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()

    def release(self, patience: float) -> None:
        """Wait up to `patience` seconds for the process to end, else kill it; then free everything."""
        self._process.join(patience)
        if not self.ended():
            self.kill()
            self._process.join()
        self.hang_up()
        self._process.close()
        self._ledger.close()
        for descriptor in (self._lifeline, self._stacks, *self._output.values()):
            os.close(descriptor)

    def _kernel_state(self) -> str:
        try:
            with open(f"/proc/{self.pid}/stat", encoding="ascii", errors="replace") as stat:
                return stat.read().rpartition(")")[2].split()[0]
        except OSError:
            return ""


def last_lines(output: str) -> str:
    """Return the lines of a dead rank's output that are worth showing: the last, and what names the cause."""
    lines = output.splitlines()
    earlier, last = lines[:-_LAST_OUTPUT_LINES], lines[-_LAST_OUTPUT_LINES:]
    causes = [line for line in earlier if _CAUSE.search(line)][-_CAUSE_LINES:]
    return "\n".join([*causes, *(["…"] if causes else []), *last])


class _Inherited:
    """A descriptor that a starting child process receives its own copy of; the child calls `detach()`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return _as_received, (reduction.DupFd(self._descriptor),)


def _as_received(descriptor: Any) -> Any:
    return descriptor


def _memory_file(name: str) -> int:
    """Make a file without a name: it goes with the last process that has it open."""
    descriptor = os.memfd_create(f"vdist-{name}", os.MFD_CLOEXEC)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
    return descriptor


def _read_until_quiet(descriptor: int) -> str:
    deadline = time.monotonic() + _STACKS_PATIENCE
    chunks: list[bytes] = []
    while True:
        quiet = _STACKS_QUIET if chunks else _STACKS_PATIENCE
        patience = min(quiet, deadline - time.monotonic())
        if patience <= 0 or not wait([descriptor], patience):
            return b"".join(chunks).decode(errors="replace")
        chunks.append(os.read(descriptor, 1 << 16))
