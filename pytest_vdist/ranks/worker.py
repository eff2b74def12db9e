"""The life of a rank process: wait for a run, run the function, answer. Everything else serves that loop.

It must not import pytest or hypothesis: it works without them. The fork server has pytest loaded already,
for the sake of functions with rewritten asserts.
"""

from __future__ import annotations

import faulthandler
import fcntl
import importlib
import mmap
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch

from pytest_vdist.ranks import _compat, wire
from pytest_vdist.ranks.comparisons import ComparisonNotes
from pytest_vdist.ranks.context import RankContext, set_current_rank
from pytest_vdist.ranks.debugger import RankDebugger
from pytest_vdist.ranks.isolation import ProcessState
from pytest_vdist.ranks.ledger import LEDGER_BYTES, LedgerPage
from pytest_vdist.ranks.messages import Outcome, Question, RaisedException, Reply, Run
from pytest_vdist.ranks.observation import LogNotes, WarningNotes, recorded
from pytest_vdist.ranks.watch import ProcessGroupWatch
from pytest_vdist.ranks.world import Rendezvous, World, set_current_world

STACKS_SIGNAL = signal.SIGUSR1


@dataclass(frozen=True)
class Link:
    """The rank's ends of what connects it with the controller.

    `lifeline` is a pipe whose other end only the controller holds. `ledger`, `stdout` and `stderr` are memory
    files that the controller reads also after the rank's death; `stacks` is a pipe for stack dumps.
    The descriptors are wrapped for their journey by multiprocess and must be detached.
    """

    connection: Any
    lifeline: Any
    ledger: Any
    stdout: Any
    stderr: Any
    stacks: Any


@dataclass(frozen=True)
class Assignment:
    """Which rank a process is, on which device type, with which environment and which `rank_setup`."""

    rendezvous: Rendezvous
    device_type: str
    environment: Mapping[str, str]
    rank_setup: str = ""


def rank_main(link: Link, assignment: Assignment) -> None:
    """Serve runs until the controller hangs up. Never returns: the process ends without interpreter teardown.

    Live gloo threads abort a process that tears the interpreter down (pytorch/pytorch#179291).
    """
    os.setpgid(0, 0)  # a Ctrl-C at the terminal is the controller's to handle
    _die_with_controller(link.lifeline.detach())
    _redirect_output(link.stdout.detach(), link.stderr.detach())
    faulthandler.enable(file=2, all_threads=True)
    stacks = link.stacks.detach()
    _answer_with_stacks(stacks)
    watch = ProcessGroupWatch(LedgerPage(mmap.mmap(link.ledger.detach(), LEDGER_BYTES)))
    watch.install()
    wire.enter_rank()
    here = assignment.rendezvous
    os.environ.clear()
    os.environ.update(assignment.environment)
    os.environ.update(RANK=str(here.rank), LOCAL_RANK=str(here.local_rank), GROUP_RANK=str(here.node))
    os.environ.update(WORLD_SIZE=str(here.world_size), LOCAL_WORLD_SIZE=str(here.local_world_size))
    _set_up(assignment.rank_setup)
    set_current_rank(RankContext(here.rank, here.world_size, here.local_rank, _device(assignment), here.node))
    state = ProcessState(after_signal_change=lambda: _answer_with_stacks(stacks))
    debugger = RankDebugger(lambda text: _ask(link.connection, text))
    debugger.install()
    server = _Server(World(here, watch), state, debugger)
    link.connection.send_bytes(wire.dump_message(Reply(0, Outcome.RETURNED)))
    while True:
        try:
            message = link.connection.recv_bytes()
        except (EOFError, ConnectionError):
            os.killpg(0, signal.SIGKILL)  # with the processes that functions have left running
        link.connection.send_bytes(wire.dump_message(server.serve(wire.load_message(message))))
        state.restore()  # after the answer: nobody waits for it


class _Server:
    """Runs functions in this rank, one after the other."""

    def __init__(self, world: World, state: ProcessState, debugger: RankDebugger) -> None:
        self._world = world
        self._state = state
        self._debugger = debugger
        self._warnings = WarningNotes()
        self._logs = LogNotes()
        self._comparisons = ComparisonNotes()
        set_current_world(world)

    def serve(self, run: Run) -> Reply:
        with ExitStack() as stack:
            caught = stack.enter_context(self._warnings.recording(run.warning_filters))
            records = stack.enter_context(self._logs.recording(run.log_levels))
            reply = self._attempt(run)
            self._state.flush()
            return replace(reply, warnings=recorded(caught), log_records=tuple(records))

    def _attempt(self, run: Run) -> Reply:
        try:
            self._world.enter(run.world, run.world_serial, run.master_port)
            self._state.begin_run(run.environment, run.seed)
            value = self._call(run.body)
        except BaseException as error:
            reply = _reply_of_exception(run, error, self._comparisons)
            if run.post_mortem and reply.outcome is Outcome.RAISED:
                self._debugger.post_mortem(error, lambda frame: _is_runner(frame.f_code.co_filename))
            return reply
        return Reply(
            run.serial,
            Outcome.RETURNED,
            value,
            world_reusable=self._world.clean() and not run.world.empty,
            rank_reusable=not self._state.threads_left(),
            traffic=self._world.traffic(),
        )

    def _call(self, body: bytes) -> bytes:
        function, args, kwargs = wire.load_body(body)
        self._comparisons.begin_run()  # now that what the function needs of pytest is loaded
        return wire.dump_result(function(*args, **kwargs))


def _reply_of_exception(run: Run, error: BaseException, comparisons: ComparisonNotes) -> Reply:
    now = time.monotonic()
    kind = _compat.outcome_of(error)
    if kind in {"skip", "xfail", "exit"}:
        outcome = {"skip": Outcome.SKIPPED, "xfail": Outcome.XFAILED, "exit": Outcome.EXITED}[kind]
        return Reply(run.serial, outcome, reason=str(error), world_reusable=False)
    text = _traceback_text(error)
    raised = RaisedException(type(error).__qualname__, _message(error), text, now, comparisons.of(error))
    return Reply(run.serial, Outcome.RAISED, raised=raised, world_reusable=False)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:
        return f"<its text can't be had: __str__ raised {type(problem).__name__}>"


def _traceback_text(error: BaseException) -> str:
    """Format the traceback from the function's own first frame on: nobody looks for errors in the runner."""
    description = traceback.TracebackException.from_exception(error)
    frames = [frame for frame in description.stack if not _is_runner(frame.filename)]
    description.stack = traceback.StackSummary.from_list(frames or list(description.stack))
    return "".join(description.format()).rstrip()


def _is_runner(filename: str) -> bool:
    return filename.startswith(_RUNNER_FOLDER)


def _ask(connection: Any, text: str) -> str:
    connection.send_bytes(wire.dump_message(Question(text)))
    return bytes(connection.recv_bytes()).decode()


_RUNNER_FOLDER = os.path.join(os.path.dirname(__file__), "")


def _set_up(function: str) -> None:
    """Call "pkg.mod:function", with which a vendor makes torch know its device."""
    if function:
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)()


def _device(assignment: Assignment) -> torch.device:
    if assignment.device_type == "cpu":
        return torch.device("cpu")
    device = torch.device(assignment.device_type, assignment.rendezvous.local_rank)
    torch.get_device_module(device).set_device(device)
    return device


def _answer_with_stacks(descriptor: int) -> None:
    """Dump the stacks of all threads at the signal. Registering again without unregistering does nothing."""
    faulthandler.unregister(STACKS_SIGNAL)
    faulthandler.register(STACKS_SIGNAL, file=descriptor, all_threads=True)


def _redirect_output(stdout: int, stderr: int) -> None:
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    sys.stdout = open(1, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115


def _die_with_controller(lifeline: int) -> None:
    """End this process, and those that functions have started, at once when the controller ends.

    On Linux the kernel itself sends SIGKILL to the process group when the pipe's other end closes (fcntl(2),
    F_SETOWN and F_SETSIG), so that a rank that holds the GIL in C dies too. Elsewhere a thread waits for the
    end of the pipe.
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_wait_for_end, args=(lifeline,), name="vdist-lifeline", daemon=True).start()


def _wait_for_end(lifeline: int, kill_group: Callable[[int, int], None] = os.killpg) -> None:
    os.read(lifeline, 1)
    kill_group(0, signal.SIGKILL)
