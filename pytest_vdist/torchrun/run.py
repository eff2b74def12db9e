"""The fixture's work: devices leased, the environment of torchrun, then one launch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest_vdist
from pytest_vdist.backends.base import DeviceBackend
from pytest_vdist.backends.devices import MachineDevices
from pytest_vdist.backends.sharing import node_size, sharing_environment
from pytest_vdist.options.parsers import LONGEST_TIMEOUT
from pytest_vdist.ranks import emission
from pytest_vdist.torchrun import rank
from pytest_vdist.torchrun.failures import TorchrunError
from pytest_vdist.torchrun.launch import Launch
from pytest_vdist.torchrun.notes import RankOutput

DEVICE_TYPE = "VDIST_DEVICE_TYPE"
SPLIT_GROUP = "VDIST_DISTRIBUTED_USE_SPLIT_GROUP"


class TorchrunRun(Protocol):
    """Type of the fixture `torchrun_run`."""

    def __call__(
        self,
        script: str | os.PathLike[str],
        /,
        *args: str,
        nproc_per_node: int = 2,
        nnodes: int = 1,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        split_group: bool | None = None,
    ) -> list[RankOutput]:
        """Run `torchrun script *args` and return what every rank has written, by rank.

        There are `nproc_per_node` ranks on each of `nnodes` agents of torchrun, all on this machine.
        `timeout` is the deadline in seconds, from when all ranks have started (default: --vdist-timeout).
        `env` adds environment variables; VDIST_DEVICE_TYPE is the device's type.
        Where --vdist-ranks-per-device lets ranks share devices, each agent has no more ranks than there are
        devices, and there are as many more agents.
        `split_group` sets VDIST_DISTRIBUTED_USE_SPLIT_GROUP to 1 or 0, None leaves it. Raises TorchrunError
        if a rank fails or does not finish, FileNotFoundError without the script, ValueError for numbers that
        the machine is too small for.
        """


@dataclass(frozen=True)
class TorchrunRunner:
    """Runs scripts on the devices of one backend."""

    backend: DeviceBackend
    device_count: int
    default_timeout: float
    ranks_per_device: int = 1
    runs_per_device: int = 1
    log_run: Callable[[int, float], None] = lambda _size, _seconds: None

    @property
    def _devices(self) -> MachineDevices:
        return MachineDevices(self.backend, self.device_count, self.ranks_per_device, self.runs_per_device)

    def __call__(
        self,
        script: str | os.PathLike[str],
        /,
        *args: str,
        nproc_per_node: int = 2,
        nnodes: int = 1,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        split_group: bool | None = None,
    ) -> list[RankOutput]:
        __tracebackhide__ = True
        limit = self.default_timeout if timeout is None else timeout
        self._check(nproc_per_node, nnodes, limit)
        path = Path(script).absolute()
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no script {path}: name it from the test, Path(__file__).parent"
            )
        ranks = nproc_per_node * nnodes
        with self._devices.hold(ranks) as devices:
            on_agent = node_size(nproc_per_node, len(devices)) if devices else nproc_per_node
            places = [self._place(devices, agent, on_agent, ranks) for agent in range(ranks // on_agent)]
            environments = [
                self._environment(sharing, env or {}, visible, split_group) for sharing, visible in places
            ]
            started = time.monotonic()
            try:
                outputs = Launch(path, args, on_agent, environments, limit).run()
            except TorchrunError as error:
                _emit(error.outputs)
                raise
            finally:
                self.log_run(ranks, time.monotonic() - started)
        _emit(outputs)
        return outputs

    def _check(self, nproc_per_node: int, nnodes: int, timeout: float) -> None:
        for name, number in (("nproc_per_node", nproc_per_node), ("nnodes", nnodes)):
            if type(number) is not int or number < 1:
                raise ValueError(f"{name} must be a whole number from 1, got {number!r}")
        wanted = nproc_per_node * nnodes
        asked = f"nproc_per_node={nproc_per_node} x nnodes={nnodes}"
        self._devices.require(wanted, asked)
        several = nnodes > 1 or nproc_per_node > self.device_count
        if several and not (self.backend.shares_device or self.backend.visible_devices_variable):
            raise ValueError(
                f"{asked} takes several agents of torchrun, whose ranks would all get the first devices: "
                f"backend {self.backend.name!r} has no visible_devices_variable; give it one, or ask for one "
                f"node of up to {self.device_count}"
            )
        if not (0 < timeout <= LONGEST_TIMEOUT):
            raise ValueError(
                f"timeout must be a number of seconds up to {LONGEST_TIMEOUT} (a day), got {timeout!r}"
            )

    def _place(
        self, devices: Sequence[str], agent: int, on_agent: int, ranks: int
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return what the ranks of an agent need where others have their devices too, and what they see."""
        variable = self.backend.visible_devices_variable
        sharing = sharing_environment(self.backend, agent) if 0 < len(devices) < ranks else {}
        own = [
            devices[(agent * on_agent + rank) % len(devices)] for rank in range(on_agent if devices else 0)
        ]
        return sharing, {variable: ",".join(own)} if variable and own else {}

    def _environment(
        self,
        sharing: Mapping[str, str],
        env: Mapping[str, str],
        visible: Mapping[str, str],
        split_group: bool | None,
    ) -> dict[str, str]:
        split = {} if split_group is None else {SPLIT_GROUP: str(int(split_group))}
        return {
            "OMP_NUM_THREADS": "1",  # as torchrun sets it, but without its notice
            "PYTHONUNBUFFERED": "1",  # a rank that is killed has written what it printed
            **os.environ,
            **self.backend.rank_environment,
            DEVICE_TYPE: self.backend.device_type,
            rank.SETUP: self.backend.rank_setup,
            rank.PACKAGE: str(Path(pytest_vdist.__file__).parent.parent),
            **split,
            **sharing,
            **env,
            **visible,
        }


def _emit(outputs: Sequence[RankOutput]) -> None:
    emission.emit_output([(output.stdout, output.stderr) for output in outputs])
