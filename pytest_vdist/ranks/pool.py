"""Warm ranks for a whole session: one team per world size, started when needed, replaced after a failure."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.backends.devices import MachineDevices
from pytest_vdist.options.parsers import LONGEST_TIMEOUT
from pytest_vdist.ranks import emission, wire
from pytest_vdist.ranks.debugger import Ask
from pytest_vdist.ranks.failures import DistributedRunError, RanksUnavailableError
from pytest_vdist.ranks.launcher import Launcher
from pytest_vdist.ranks.messages import Outcome, Reply, Run, WorldSpec
from pytest_vdist.ranks.outcomes import RankOutcome, outcomes_of
from pytest_vdist.ranks.rank import RankLauncher
from pytest_vdist.ranks.side_by_side import execute_side_by_side
from pytest_vdist.ranks.surroundings import Surroundings, environment_changes
from pytest_vdist.ranks.team import RankLostError, Result, Team
from pytest_vdist.ranks.teams import Devices, WarmTeams, warn_of_lost_ranks

_MOST_RANKS_SIDE_BY_SIDE = 16
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
        explain: Callable[[DistributedRunError], None] = lambda _: None,
        launcher: RankLauncher | None = None,
        preload: Sequence[str] = (),
        ranks_per_device: int = 1,
        runs_per_device: int = 1,
    ) -> None:
        """Start nothing yet.

        `notify` is told how a slow start of ranks goes on, from another thread. `log_run` is told world size
        and seconds of each run, from its dispatch to its end. `ask` shows a text of a rank that is being
        debugged and returns a line for it; with `post_mortem`, that is also any rank that raises. `explain`
        may add to a failure before it is raised. `launcher` starts the ranks, by default as processes of this
        machine, whose devices are leased for each run and which find the modules of `preload` imported; up to
        `ranks_per_device` of them get the same device where there are more ranks than devices, and up to
        `runs_per_device` runs, of all sessions that say so, at the same time.
        """
        self._log_run, self._ask, self._post_mortem, self._explain = log_run, ask, post_mortem, explain
        self._launcher = Launcher(backend, preload=preload) if launcher is None else launcher
        places = self._launcher.places or device_count
        self._teams = WarmTeams(backend, places * ranks_per_device, self._launcher, notify)
        self._devices = MachineDevices(backend, device_count, ranks_per_device, runs_per_device)
        self._serials = itertools.count(1)
        self._surroundings = Surroundings()

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
        return _outcomes(result)

    def outcomes_side_by_side(
        self,
        function: Callable[..., Any],
        plays: Sequence[Sequence[Any]],
        *,
        world: WorldSpec,
        world_size: int,
        timeout: float,
    ) -> list[list[RankOutcome]]:
        """Run as `outcomes` does, once with the arguments of each of `plays`.

        They run at the same time on the same devices, up to 16 ranks at once, which are new ones; on those of
        torchrun, one after the other.
        """
        self._check(world_size, timeout, None)
        if self._launcher.places is not None:
            return [
                self.outcomes(function, play, {}, world=world, world_size=world_size, timeout=timeout)
                for play in plays
            ]
        bodies = [wire.dump_body(function, play, {}) for play in plays]
        at_once = max(1, min(len(bodies), _MOST_RANKS_SIDE_BY_SIDE // world_size))
        outcomes: list[list[RankOutcome]] = []
        with self._leased(world_size, teams=at_once) as devices:
            for first in range(0, len(bodies), at_once):
                now = bodies[first : first + at_once]
                results = self._execute_side_by_side(now, devices, world, world_size, timeout)
                for play, result in enumerate(results, first):
                    outcomes.append(_outcomes(result, label=f"play {play}, "))
        return outcomes

    def _execute_side_by_side(
        self, bodies: Sequence[bytes], devices: Devices, world: WorldSpec, world_size: int, timeout: float
    ) -> list[Result]:
        with ExitStack() as ends:
            runs = []
            for body in bodies:
                team = self._teams.start(world_size, devices)
                ends.callback(_end, team)
                runs.append((team, self._dispatch(team, world, body, None)))
            started = time.monotonic()
            try:
                results = execute_side_by_side(runs, timeout, self._ask)
            except RankLostError as lost:
                raise RanksUnavailableError(f"new ranks have ended before their run: {lost}", []) from None
            self._log_run(world_size, time.monotonic() - started)
        return results

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
                if fresh:
                    _end(team)
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
        if places is None:
            self._devices.require(world_size, f"world_size={world_size}")
        if not (isinstance(timeout, int | float) and 0 < timeout <= LONGEST_TIMEOUT):
            message = f"timeout must be a number of seconds up to {LONGEST_TIMEOUT} (a day), got {timeout!r}"
            raise ValueError(message)
        wrong = [(name, value) for name, value in (env or {}).items() if {type(name), type(value)} != {str}]
        if wrong:
            message = f"env must map names to text, got {wrong[0][0]!r}: {wrong[0][1]!r}"
            raise TypeError(message)

    @contextmanager
    def _leased(self, world_size: int, *, teams: int = 1) -> Iterator[Devices]:
        """Hold the devices of a run. The processes of torchrun hold theirs all the time."""
        if self._launcher.places is not None:
            yield ()
            return
        warm = self._teams.devices_of_warm(world_size)
        with self._devices.hold(world_size, teams=teams, preferred=warm) as devices:
            yield devices

    def _dispatch(self, team: Team, world: WorldSpec, body: bytes, env: Mapping[str, str] | None) -> Run:
        serial = next(self._serials)
        world_serial = team.world[1] if team.world is not None and team.world[0] == world else serial
        return Run(
            serial=serial,
            world=world,
            world_serial=world_serial,
            master_port=team.master_port(world, new=world_serial == serial),
            environment=environment_changes(team.controller_environment, env),
            warning_filters=self._surroundings.warning_filters(),
            log_levels=self._surroundings.log_levels(),
            seed=_SEED,
            post_mortem=self._post_mortem,
            body=body,
        )

    def _conclude(self, result: Result) -> list[Any]:
        __tracebackhide__ = True
        replies = emission.emit(result.replies, result.output)
        if result.failure is not None:
            self._explain(result.failure)
            raise result.failure
        _raise_agreed_outcome(replies[0][1])
        return [wire.load_result(reply.value) for _, reply in replies]


def _end(team: Team) -> None:
    if not team.closed:
        team.close()


def _outcomes(result: Result, label: str = "") -> list[RankOutcome]:
    emission.emit(result.replies, result.output, label)
    emission.emit_ends(result.failure.statuses if result.failure is not None else (), label)
    return outcomes_of(result)


def _raise_agreed_outcome(reply: Reply) -> None:
    __tracebackhide__ = True
    if reply.outcome is Outcome.SKIPPED:
        pytest.skip(reply.reason)
    if reply.outcome is Outcome.XFAILED:
        pytest.xfail(reply.reason)
    if reply.outcome is Outcome.EXITED:
        pytest.exit(reply.reason)
