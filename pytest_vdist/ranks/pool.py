"""Warm ranks for a whole session: one team per world size, started when needed, replaced after a failure."""

from __future__ import annotations

import itertools
import logging
import math
import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.ranks import _compat, emission, wire
from pytest_vdist.ranks.launcher import Launcher
from pytest_vdist.ranks.messages import Outcome, Reply, Run, WorldSpec
from pytest_vdist.ranks.team import Result, Team

_MOST_IDLE_RANKS = 16
_MOST_RANKS = 1024
_SEED = 0


class RankLostWarning(UserWarning):
    """Warned when the process of an idle rank has ended by itself; the run goes on with fresh ranks."""


class RankPool:
    """Runs functions on ranks of one device backend. All processes end with `close`, or with this process."""

    def __init__(self, backend: DeviceBackend, device_count: int) -> None:
        self._backend = backend
        self._device_count = device_count
        self._launcher = Launcher(backend.start_method, backend.rank_environment)
        self._teams: OrderedDict[int, Team] = OrderedDict()
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
        team = self._team(world_size, fresh=fresh)
        try:
            result = team.execute(self._dispatch(team, world, body, env), timeout)
        finally:
            if fresh and not team.closed:
                team.close()
        return self._conclude(result)

    def close(self) -> None:
        """End every rank process."""
        while self._teams:
            self._teams.popitem()[1].close()

    def pids(self) -> list[int]:
        """Return the process ids of all warm ranks."""
        return [pid for team in self._teams.values() for pid in team.pids]

    def _check(self, world_size: int, timeout: float, env: Mapping[str, str] | None) -> None:
        if (
            isinstance(world_size, bool)
            or not isinstance(world_size, int)
            or not 1 <= world_size <= _MOST_RANKS
        ):
            message = f"world_size must be a whole number from 1 to {_MOST_RANKS}, got {world_size!r}"
            raise ValueError(message)
        if world_size > self._device_count and not self._backend.shares_device:
            message = (
                f"world_size={world_size} needs {world_size} devices of backend {self._backend.name!r}, "
                f"this machine has {self._device_count}; ask for fewer or use the marker vdist_world_size"
            )
            raise ValueError(message)
        if not (isinstance(timeout, int | float) and math.isfinite(timeout) and timeout > 0):
            message = f"timeout must be a positive number of seconds, got {timeout!r}"
            raise ValueError(message)
        wrong = [(name, value) for name, value in (env or {}).items() if {type(name), type(value)} != {str}]
        if wrong:
            message = f"env must map names to text, got {wrong[0][0]!r}: {wrong[0][1]!r}"
            raise TypeError(message)

    def _team(self, world_size: int, *, fresh: bool) -> Team:
        if fresh:
            self._make_room(world_size)
            return Team(self._launcher, world_size, self._backend.device_type)
        team = self._teams.pop(world_size, None)
        if team is not None and not team.closed:
            lost = team.ended_ranks()
            if lost:
                team.kill()
                warnings.warn(f"between two runs ended {'; '.join(lost)}", RankLostWarning, stacklevel=4)
        if team is None or team.closed:
            self._make_room(world_size)
            team = Team(self._launcher, world_size, self._backend.device_type)
        self._teams[world_size] = team
        return team

    def _make_room(self, world_size: int) -> None:
        """End the teams used least recently, so that idle ranks hold neither devices nor much memory."""
        most = _MOST_IDLE_RANKS if self._backend.shares_device else self._device_count
        while self._teams and sum(self._teams) + world_size > most:
            self._teams.popitem(last=False)[1].close()

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
            body=body,
        )

    def _warning_filters(self) -> bytes:
        filters = _compat.current_warning_filters()
        if filters != self._filters[0]:
            self._filters = (filters, wire.dump_result(filters))
        return self._filters[1]

    def _conclude(self, result: Result) -> list[Any]:
        __tracebackhide__ = True
        replies = [(rank, reply) for rank, reply in enumerate(result.replies) if reply is not None]
        emission.emit_output(result.output)
        emission.emit_warnings(replies)
        emission.emit_log_records(replies)
        if result.failure is not None:
            raise result.failure
        _raise_agreed_outcome(replies[0][1])
        return [wire.load_result(reply.value) for _, reply in replies]


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
