"""Warm ranks for a whole session: one team per world size, started when needed, replaced after a failure."""

from __future__ import annotations

import itertools
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.backends.leases import DeviceLeases
from pytest_vdist.ranks import _compat, emission, wire
from pytest_vdist.ranks.debugger import Ask
from pytest_vdist.ranks.launcher import Launcher
from pytest_vdist.ranks.messages import Outcome, Reply, Run, WorldSpec
from pytest_vdist.ranks.outcomes import RankOutcome, outcomes_of
from pytest_vdist.ranks.rank import RankLauncher
from pytest_vdist.ranks.team import RankLostError, Result, Team
from pytest_vdist.ranks.teams import Devices, WarmTeams, device_slots, warn_of_lost_ranks

_LEASE_TIMEOUT = 900.0
_MOST_RANKS = 1024
_SEED = 0


class RankPool:
    """Runs functions on ranks of one device backend. All processes end with `close`, or with this process."""

    def __init__(
        self,
        backend: DeviceBackend,
        device_count: int,
        *,
        notify: Callable[[str], None] = lambda _: None,
        log_run: Callable[[int, float], None] = lambda _size, _seconds: None,
        ask: Ask = lambda _: "",
        post_mortem: bool = False,
        launcher: RankLauncher | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        """Start nothing yet.

        `notify` is told how a slow start of ranks goes on, from another thread. `log_run` is told world size
        and seconds of each run, from its dispatch to its end. `ask` shows a text of a rank that is being
        debugged and returns a line for it; with `post_mortem`, that is also any rank that raises. `launcher`
        starts the ranks, by default as processes of this machine, whose devices are leased for each run and
        which find the modules of `preload` imported.
        """
        self._backend = backend
        self._log_run, self._ask, self._post_mortem = log_run, ask, post_mortem
        self._launcher = Launcher(backend, preload=preload) if launcher is None else launcher
        places = self._launcher.places or device_count
        self._teams = WarmTeams(backend, places, self._launcher, notify)
        self._leases = DeviceLeases(backend.name, device_slots(backend, device_count))
        self._serials = itertools.count(1)
        self._log_levels = _LogLevels()
        self._filters: tuple[list[Any], bytes] = ([], b"")

    def run(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        world: WorldSpec,
        world_size: int,
        timeout: float,
        fresh: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> list[Any]:
        """Run `function(*args, **kwargs)` on ranks 0 to world_size - 1 and return their results by rank.

        `timeout` is in seconds, from the dispatch. Raises DistributedRunError if a rank raised, died
        or did not finish, CannotTravelError if the function can't be sent, ValueError for a bad argument.
        """
        __tracebackhide__ = True
        self._check(world_size, timeout, env)
        body = wire.dump_body(function, args, kwargs)
        with self._leased(world_size) as devices:
            result = self._execute(
                body,
                devices=devices,
                world=world,
                world_size=world_size,
                timeout=timeout,
                fresh=fresh,
                env=env,
            )
        return self._conclude(result)

    def outcomes(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        world: WorldSpec,
        world_size: int,
        timeout: float,
        env: Mapping[str, str] | None = None,
    ) -> list[RankOutcome]:
        """Run as `run` does, and return how each rank ended, failures among them.

        Every rank has all of the `timeout`, also where others have failed. What a dead rank wrote last, and
        the stack of one that has not finished, go to stderr, where pytest shows them if the test fails.
        """
        self._check(world_size, timeout, env)
        body = wire.dump_body(function, args, kwargs)
        with self._leased(world_size) as devices:
            result = self._execute(
                body,
                devices=devices,
                world=world,
                world_size=world_size,
                timeout=timeout,
                fresh=False,
                env=env,
                to_the_end=True,
            )
        _emit(result)
        emission.emit_ends(result.failure.statuses if result.failure is not None else ())
        return outcomes_of(result)

    def _execute(
        self,
        body: bytes,
        *,
        devices: Devices,
        world: WorldSpec,
        world_size: int,
        timeout: float,
        fresh: bool,
        env: Mapping[str, str] | None,
        to_the_end: bool = False,
    ) -> Result:
        """Run on a team; on another one, if it turns out to have lost a rank before the run could begin."""
        while True:
            team = self._teams.start(world_size, devices) if fresh else self._teams.take(world_size, devices)
            started = time.monotonic()
            try:
                run = self._dispatch(team, world, body, env)
                result = team.execute(run, timeout, self._ask, to_the_end=to_the_end)
            except RankLostError as lost:
                warn_of_lost_ranks(str(lost))
                continue
            finally:
                if fresh and not team.closed:
                    team.close()
            self._log_run(world_size, time.monotonic() - started)
            return result

    def close(self) -> None:
        """End every rank process."""
        self._teams.close()

    def pids(self) -> list[int]:
        """Return the process ids of all warm ranks."""
        return self._teams.pids()

    def _check(self, world_size: int, timeout: float, env: Mapping[str, str] | None) -> None:
        if (
            isinstance(world_size, bool)
            or not isinstance(world_size, int)
            or not 1 <= world_size <= _MOST_RANKS
        ):
            message = f"world_size must be a whole number from 1 to {_MOST_RANKS}, got {world_size!r}"
            raise ValueError(message)
        places = self._launcher.places
        if places is not None and world_size > places:
            message = (
                f"world_size={world_size} needs {world_size} processes, torchrun has started {places}; "
                "ask for fewer, start more, or mark the test"
            )
            raise ValueError(message)
        if places is None and world_size > len(self._leases.slots) and not self._backend.shares_device:
            message = (
                f"world_size={world_size} needs {world_size} devices of backend {self._backend.name!r}, "
                f"this machine has {len(self._leases.slots)}; ask for fewer or mark the test"
            )
            raise ValueError(message)
        if not (isinstance(timeout, int | float) and math.isfinite(timeout) and timeout > 0):
            message = f"timeout must be a positive number of seconds, got {timeout!r}"
            raise ValueError(message)
        wrong = [(name, value) for name, value in (env or {}).items() if {type(name), type(value)} != {str}]
        if wrong:
            message = f"env must map names to text, got {wrong[0][0]!r}: {wrong[0][1]!r}"
            raise TypeError(message)

    @contextmanager
    def _leased(self, world_size: int) -> Iterator[Devices]:
        """Hold a device for each rank; where ranks share one, so many places to run in.

        The processes of torchrun hold theirs all the time.
        """
        if self._launcher.places is not None:
            yield ()
            return
        if self._backend.shares_device:
            with self._leases.hold(min(world_size, len(self._leases.slots)), timeout=_LEASE_TIMEOUT):
                yield ()
            return
        # Without a variable that hides devices, ranks can be placed on the first ones only.
        movable = bool(self._backend.visible_devices_variable)
        among = self._leases.slots if movable else self._leases.slots[:world_size]
        warm = self._teams.devices_of_warm(world_size)
        with self._leases.hold(world_size, among=among, preferred=warm, timeout=_LEASE_TIMEOUT) as devices:
            yield devices

    def _dispatch(self, team: Team, world: WorldSpec, body: bytes, env: Mapping[str, str] | None) -> Run:
        serial = next(self._serials)
        world_serial = team.world[1] if team.world is not None and team.world[0] == world else serial
        return Run(
            serial=serial,
            world=world,
            world_serial=world_serial,
            master_port=team.master_port(world, new=world_serial == serial),
            environment=_environment_changes(team.controller_environment, env),
            warning_filters=self._warning_filters(),
            log_levels=self._log_levels.read(),
            seed=_SEED,
            post_mortem=self._post_mortem,
            body=body,
        )

    def _warning_filters(self) -> bytes:
        filters = _compat.current_warning_filters()
        if filters != self._filters[0]:
            self._filters = (filters, wire.dump_result(filters))
        return self._filters[1]

    def _conclude(self, result: Result) -> list[Any]:
        __tracebackhide__ = True
        replies = _emit(result)
        if result.failure is not None:
            raise result.failure
        _raise_agreed_outcome(replies[0][1])
        return [wire.load_result(reply.value) for _, reply in replies]


def _emit(result: Result) -> list[tuple[int, Reply]]:
    """Let output, warnings and log records of the ranks reach the test; return the replies by rank."""
    replies = [(rank, reply) for rank, reply in enumerate(result.replies) if reply is not None]
    emission.emit_output(result.output)
    emission.emit_warnings(replies)
    emission.emit_log_records(replies)
    return replies


def _raise_agreed_outcome(reply: Reply) -> None:
    __tracebackhide__ = True
    if reply.outcome is Outcome.SKIPPED:
        pytest.skip(reply.reason)
    if reply.outcome is Outcome.XFAILED:
        pytest.xfail(reply.reason)
    if reply.outcome is Outcome.EXITED:
        pytest.exit(reply.reason)


def _environment_changes(
    started_with: Mapping[bytes, bytes], env: Mapping[str, str] | None
) -> dict[str, str | None]:
    """Return what the test changed since the ranks were started, so that monkeypatch.setenv reaches them."""
    now = _compat.environment_snapshot()
    changes: dict[str, str | None] = {
        os.fsdecode(k): os.fsdecode(v) for k, v in now.items() if started_with.get(k) != v
    }
    changes.update({os.fsdecode(name): None for name in started_with.keys() - now.keys()})
    changes.update(env or {})
    return changes


class _LogLevels:
    """The levels that are set in this process; the empty name is the root logger."""

    def __init__(self) -> None:
        self._loggers: list[tuple[str, logging.Logger]] = []
        self._known = -1

    def read(self) -> dict[str, int]:
        registered = logging.Logger.manager.loggerDict
        if len(registered) != self._known:
            self._known = len(registered)
            self._loggers = [
                (n, logger) for n, logger in registered.items() if isinstance(logger, logging.Logger)
            ]
        levels = {name: logger.level for name, logger in self._loggers if logger.level}
        return {"": logging.getLogger().level, **levels}
