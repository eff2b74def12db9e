"""The warm teams of a session: found again by world size and devices, ended when others need the room."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable

from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.ranks.rank import RankLauncher
from pytest_vdist.ranks.team import Team

_MOST_IDLE_RANKS = 16
_TEAMS_PER_PLACE = 2

Devices = tuple[str, ...]


class RankLostWarning(UserWarning):
    """Warned when the process of an idle rank has ended by itself; the run goes on with fresh ranks."""


def warn_of_lost_ranks(which: str) -> None:
    """Warn at the test's call of the fixture."""
    warnings.warn(f"between two runs ended {which}", RankLostWarning, stacklevel=6)


class WarmTeams:
    """Teams of one device backend, the one used last at the end."""

    def __init__(
        self,
        backend: DeviceBackend,
        places: int,
        launcher: RankLauncher,
        notify: Callable[[str], None],
    ) -> None:
        """Keep no team yet. So many ranks as there are `places` have devices at the same time."""
        self._launcher = launcher
        self._teams: OrderedDict[tuple[int, Devices], Team] = OrderedDict()
        self._most = _MOST_IDLE_RANKS if backend.shares_device else _TEAMS_PER_PLACE * places
        self._notify = notify

    def devices_of_warm(self, world_size: int) -> list[Devices]:
        """Return the devices on which a team of that size is warm, the one used last first."""
        return [devices for size, devices in reversed(self._teams) if size == world_size]

    def take(self, world_size: int, devices: Devices) -> Team:
        """Return a warm team, or a new one where none is warm or one of its ranks has ended."""
        team = self._teams.pop((world_size, devices), None)
        if team is not None and not team.closed:
            lost = team.ended_ranks()
            if lost:
                team.kill()
                warn_of_lost_ranks("; ".join(lost))
        if team is None or team.closed:
            team = self.start(world_size, devices)
        self._teams[world_size, devices] = team
        return team

    def start(self, world_size: int, devices: Devices) -> Team:
        """Start a team that is not kept."""
        while self._teams and sum(size for size, _ in self._teams) + world_size > self._most:
            self._teams.popitem(last=False)[1].close()
        return Team(self._launcher, world_size, devices, self._notify)

    def close(self) -> None:
        while self._teams:
            self._teams.popitem()[1].close()

    def pids(self) -> list[int]:
        return [pid for team in self._teams.values() for pid in team.pids]
