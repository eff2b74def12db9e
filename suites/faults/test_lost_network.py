"""The network between two ranks goes away while they call: both get errors within the limit."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pytest_vdist import Capabilities, ImplementationSpec, OutcomesRun, current_rank
from pytest_vdist.faults.calls import CPU_LIMIT, call_named, supported_calls
from pytest_vdist.faults.record import Recorder
from pytest_vdist.faults.scene import Lived, Scene, Stage
from pytest_vdist.faults.verdicts import survivor_problem
from pytest_vdist.faults.waits import Limit

LIMIT = Limit(2.0, slack=5.0)  # as for lost ranks
DEADLINE = 60.0
INTERFACE = "vdist0"
CLONE_NEWNET = 0x40000000
PEER = 1

pytestmark = pytest.mark.vdist_world_size(min=2, max=2)


def ip(*arguments: str) -> None:
    """Run the command `ip`. Raises CalledProcessError, with what it said."""
    command = ["ip", *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)  # noqa: S603


@pytest.fixture(name="namespaces")
def fixture_namespaces() -> Iterator[list[str]]:
    """Give two network namespaces with one cable between them, where this machine lets us make them."""
    if shutil.which("ip") is None:
        pytest.skip("not run: needs the command ip (iproute2)")
    names = [f"vdist-{os.getpid()}-{rank}" for rank in (0, 1)]
    made = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ends = (
            "name",
            INTERFACE,
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            INTERFACE,
            "netns",
            names[1],
        )
        ip("link", "add", *ends)
        for rank, name in enumerate(names):
            ip("-n", name, "addr", "add", f"10.213.77.{rank + 1}/24", "dev", INTERFACE)
            ip("-n", name, "link", "set", INTERFACE, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f"not run: this machine makes no network namespaces: {error.stderr.strip()}")
    finally:
        for name in made:
            ip("netns", "delete", name)


def enter(descriptor: int) -> None:
    """Move this thread, and those that it starts from now on, to another network namespace."""
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns failed")


def lose_the_network(scene: Scene, namespaces: list[str]) -> Lived:
    here = current_rank()
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    away = os.open(f"/run/netns/{namespaces[here.rank]}", os.O_RDONLY)
    enter(away)
    try:
        stage = Stage(scene)
        calls = [call_named(name) for name in scene.calls]
        groups = stage.groups(calls)
        stage.meeting.gather("ready", stage.everyone)
        if stage.is_peer:
            ip("link", "set", INTERFACE, "down")
        stage.meeting.gather("down", stage.everyone)
        ended = stage.attempt(
            (call.name, partial(call.make, groups[call.name], scene.peer)) for call in calls
        )
        stage.meeting.gather("ended", stage.everyone)
        if stage.is_peer:
            ip("link", "set", INTERFACE, "up")
        stage.meeting.gather("up", stage.everyone)
        return Lived(ended, stage.begin_again(stage.everyone))
    finally:
        enter(home)
        os.close(home)
        os.close(away)


@pytest.mark.vdist_requirement("VD-FLT-005", "VD-FLT-006")
def test_where_the_network_goes_away_both_ranks_get_errors_in_time(  # noqa: PLR0917 - fixtures
    outcomes_run: OutcomesRun,
    implementation: ImplementationSpec,
    capabilities: Capabilities,
    namespaces: list[str],
    tmp_path: Path,
    world_size: int,
    split_group: bool,
    request: pytest.FixtureRequest,
) -> None:
    """With the interface down every call ends in an error within the limit; with it up a new world works."""
    abort = capabilities.device_failures == "abort"
    calls = supported_calls(capabilities, CPU_LIMIT if abort else None)
    names = tuple(call.name for call in calls)
    scene = Scene(implementation, split_group, str(tmp_path), PEER, LIMIT, names)
    interfaces = {"GLOO_SOCKET_IFNAME": INTERFACE, "NCCL_SOCKET_IFNAME": INTERFACE}
    outcomes = outcomes_run(
        lose_the_network, scene, namespaces, world_size=world_size, timeout=DEADLINE, env=interfaces
    )
    table, problems = Recorder(request.node.user_properties), []
    for outcome in outcomes:
        assert outcome.state == "returned", outcome
        lived: Lived = outcome.value
        table.add("network lost", outcome.rank, lived.ended)
        problems += [
            survivor_problem(call, each, LIMIT, world_size=world_size, rank=outcome.rank, peer=PEER)
            for call, each in zip(calls, lived.ended, strict=True)
        ]
        assert lived.ranks_again == (0, 1)
    assert [problem for problem in problems if problem] == []
