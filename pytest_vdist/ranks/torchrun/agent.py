"""What torchrun's processes but the first do: start ranks for the controller, and stand between them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from multiprocess.connection import Connection, wait

from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.ranks.process import RankProcess
from pytest_vdist.ranks.torchrun import channel
from pytest_vdist.ranks.torchrun.messages import (
    Ended,
    Farewell,
    FromRank,
    Goodbye,
    HangUp,
    Hello,
    Inquire,
    Kill,
    Launch,
    Output,
    Prepare,
    Standing,
    ToRank,
)
from pytest_vdist.ranks.torchrun.own_ranks import LOOPBACK, OwnRanks
from pytest_vdist.ranks.torchrun.software import software
from pytest_vdist.role import Role

_RELEASE_PATIENCE = 1.0


def serve(role: Role, backend_named: Callable[[str], DeviceBackend], patience: float) -> None:
    """Serve the controller until it says goodbye.

    Raises OSError if it can't be found within `patience` seconds, or if the connection to it, or torchrun,
    ends before that.
    """
    port, secret = channel.MeetingStore(role, patience).await_controller()
    host = role.master_addr if role.several_nodes else LOOPBACK
    agent = _Agent(role, OwnRanks(role, backend_named), lambda: channel.connect(host, port, secret))
    agent.serve()


class _Agent:
    def __init__(self, role: Role, own_ranks: OwnRanks, connect: Callable[[], Connection]) -> None:
        self._role = role
        self._own_ranks = own_ranks
        self._connect = connect
        self._control = connect()
        self._interface = (
            channel.interface_of(channel.local_address(self._control)) if role.several_nodes else "lo"
        )

    def serve(self) -> None:
        here = self._role
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, self._say_farewell)
        hello = Hello(
            here.rank, 0, here.node, here.local_rank, socket.gethostname(), software(), time.monotonic()
        )
        channel.send(self._control, hello)
        torchrun = os.pidfd_open(os.getppid())
        while True:
            if torchrun in wait([self._control, torchrun]):
                raise OSError("torchrun has ended before the session")
            try:
                message = channel.receive(self._control)
            except EOFError:
                raise OSError("the controller, rank 0, has ended before the session") from None
            if isinstance(message, Goodbye):
                self._own_ranks.close()
                return
            task = self._prepare if isinstance(message, Prepare) else self._serve_rank
            threading.Thread(target=task, args=(message,), daemon=True).start()

    def _say_farewell(self, number: int, _: object) -> None:
        """Tell the controller, and end as the signal says; the ranks die with this process."""
        with contextlib.suppress(OSError):
            channel.send(self._control, Farewell(f"ended by {signal.Signals(number).name}"))
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    def _prepare(self, message: Prepare) -> None:
        self._own_ranks.prepare(message.backend, message.interface or self._interface)

    def _serve_rank(self, launch: Launch) -> None:
        with self._connect() as link:
            channel.send(link, Hello(self._role.rank, launch.ticket))
            try:
                sys.path.extend(place for place in launch.path if place not in sys.path)
                process = self._own_ranks.start(
                    launch.backend, launch.rendezvous, launch.interface or self._interface
                )
            except Exception as error:
                # The controller reports it.
                text = "".join(traceback.format_exception_only(error)).strip()
                channel.send(link, Ended(text))
                return
            _ServedRank(link, process).serve()


class _ServedRank:
    """One rank, and the controller's connection for it."""

    def __init__(self, link: Connection, process: RankProcess) -> None:
        self._link = link
        self._process = process
        self._released = False

    def serve(self) -> None:
        """Pass messages in both directions until the rank has ended, or the connection."""
        try:
            while not self._pass_on():
                pass
        except (EOFError, OSError):  # nobody is interested in the rank any more
            self._process.kill()
        if not self._released:
            self._process.release(_RELEASE_PATIENCE)

    def _pass_on(self) -> bool:
        """Wait for the next messages and pass them on; tell whether the rank has ended."""
        ready = wait([self._link, *self._process.sources])
        for source in [each for each in ready if each is not self._link]:
            data = self._process.receive_bytes(source)
            if data is None:
                reason, ledger = self._process.exit_text(), self._process.read_ledger()
                channel.send(self._link, Ended(reason, ledger, self._output()))
                return True
            channel.send(self._link, FromRank(data, self._output()))
        return self._link in ready and self._obey(channel.receive(self._link))

    def _obey(self, message: Any) -> bool:
        """Do what the controller says; tell whether the rank has ended by that."""
        match message:
            case ToRank(data):
                with contextlib.suppress(OSError):  # it has just ended, which the next message will tell
                    self._process.send(data)
            case HangUp():
                self._process.hang_up()
                self._process.release(_RELEASE_PATIENCE)
                self._released = True
                channel.send(self._link, Ended("it was told to end"))
                return True
            case Kill():
                self._process.kill()
            case Inquire(with_stack):
                stack = self._process.stack() if with_stack else ""
                channel.send(self._link, Standing(self._process.read_ledger(), stack, self._output()))
        return False

    def _output(self) -> Output:
        return Output(self._process.new_output("stdout"), self._process.new_output("stderr"))
