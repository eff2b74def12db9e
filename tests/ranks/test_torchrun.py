"""A session whose ranks torchrun has started: rank 0 is the controller, and no process is left behind."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_vdist.nodes import Nodes, Topology, wanted_nodes
from pytest_vdist.ranks._compat import TCPStore
from pytest_vdist.ranks.torchrun import channel
from pytest_vdist.ranks.torchrun.channel import MeetingStore
from pytest_vdist.ranks.torchrun.controller import Controller, JoinError
from pytest_vdist.ranks.torchrun.messages import Hello
from pytest_vdist.ranks.torchrun.software import software
from pytest_vdist.role import REQUIRED, Role, RoleError, forget, read_role

TWO_BY_TWO = {
    "TORCHELASTIC_RUN_ID": "one",
    "RANK": "2",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node-0",
    "MASTER_PORT": "29500",
}

ENDINGS = """
import os, threading
import pytest
import torch.distributed as dist
from pytest_vdist import RankDiedError, RanksFailedError, RanksHungError, current_rank

def test_numbers(distributed_run):
    def body():
        print("I am", os.environ["LOCAL_RANK"], "of", os.environ["LOCAL_WORLD_SIZE"])
        return current_rank().rank, current_rank().node, "TORCHELASTIC_RUN_ID" in os.environ
    assert distributed_run(body) == [(0, 0, False), (1, 0, False)]

def test_raised(distributed_run):
    def body():
        assert dist.get_rank() == 0, "no rank but 0"
    with pytest.raises(RanksFailedError) as caught:
        distributed_run(body)
    assert "rank 1 of 2 raised AssertionError: no rank but 0" in str(caught.value)

def test_died(distributed_run):
    def body():
        if dist.get_rank() == 1:
            print("my last words", flush=True)
            os._exit(7)
        dist.barrier()
    with pytest.raises(RankDiedError) as caught:
        distributed_run(body)
    assert "rank 1 of 2 died: its process exited with code 7" in str(caught.value)
    assert "my last words" in str(caught.value)

def test_hung(distributed_run):
    def stuck():
        threading.Event().wait()
    def body():
        stuck() if dist.get_rank() == 1 else dist.barrier()
    with pytest.raises(RanksHungError) as caught:
        distributed_run(body, timeout=2)
    assert "rank 0 is in barrier #1" in str(caught.value)
    assert "rank 1 is before its first collective, at stuck (test_endings.py:" in str(caught.value)
    assert "stack of rank 1" in str(caught.value)

def test_too_many(distributed_run):
    with pytest.raises(ValueError) as caught:
        distributed_run(lambda: 0, world_size=3)
    assert "world_size=3 needs 3 processes, torchrun has started 2" in str(caught.value)

@pytest.mark.vdist_nodes(min=2)
def test_far(distributed_run):
    distributed_run(lambda: 0)
"""

HUNG = """
import os, threading
import torch.distributed as dist

def test_hung(distributed_run):
    def body(ready):
        with open(ready, "w") as file:
            file.write(f"{os.getpid()} {os.getppid()}\\\\n")
        threading.Event().wait()
    distributed_run(body, os.environ["READY"], timeout=100)
""".replace("\\\\n", "\\n")


def environment_of(rank: int, world_size: int, port: int) -> dict[str, str]:
    """Return what torchrun sets, whose store is at the port."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("VDIST_", "PYTEST_"))}
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    numbers["MASTER_PORT"] = port
    return {
        **clean,
        **{name: str(number) for name, number in numbers.items()},
        "MASTER_ADDR": "127.0.0.1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


def start(
    arguments: Sequence[str], folder: Path, environment: dict[str, str], launcher: str = "torchrun"
) -> subprocess.Popen[str]:
    options = ["-p", "no:cacheprovider", "--vdist-backend=cpu", f"--vdist-launcher={launcher}"]
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def two_processes(
    arguments: Sequence[str], folder: Path, **more: str
) -> Iterator[list[subprocess.Popen[str]]]:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    port = store.port
    started = [start(arguments, folder, {**environment_of(rank, 2, port), **more}) for rank in range(2)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate(timeout=60)


def test_all_that_a_test_can_end_in_is_as_with_ranks_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "test_endings.py").write_text(ENDINGS)
    arguments = ["test_endings.py", "-v", "-rs", "--junit-xml=junit.xml"]
    with two_processes([*arguments, "--vdist-world-sizes=1,2"], tmp_path) as (controller, agent):
        output, of_agent = (process.communicate(timeout=200)[0] for process in (controller, agent))

    assert controller.returncode == 0, output
    assert "5 passed, 1 skipped" in output
    host = socket.gethostname()
    assert f"vdist: nodes {host} (2 ranks) [torchrun]" in output
    assert "needs other nodes: 2 nodes or more, the session has" in output
    assert "vdist: not run for want of nodes: 1 test\n" in output
    assert 'name="vdist.nodes" value="1"' in (tmp_path / "junit.xml").read_text()
    assert (agent.returncode, of_agent) == (0, "")


def run_with(environment: dict[str, str], folder: Path, *arguments: str) -> tuple[int, str]:
    process = start(arguments, folder, environment)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def test_what_makes_no_session_is_refused_at_once_by_every_process(tmp_path: Path) -> None:
    incomplete = environment_of(1, 2, 1)
    del incomplete["LOCAL_RANK"], incomplete["MASTER_ADDR"]

    code, output = run_with(incomplete, tmp_path)
    assert (code, "missing LOCAL_RANK, MASTER_ADDR in the environment" in output) == (4, True), output
    code, output = run_with(environment_of(1, 2, 1), tmp_path, "-n2")
    assert (code, "pytest-xdist can't be used inside torchrun, got -n 2 at RANK=1" in output) == (4, True)
    code, output = run_with(environment_of(1, 2, 1), tmp_path, "--vdist-world-sizes=2,4")
    assert (code, "torchrun's processes, here 2, got 4 from the command line" in output) == (4, True)


def test_processes_that_never_come_are_named(tmp_path: Path) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    code, output = run_with(environment_of(0, 3, store.port), tmp_path, "--vdist-join-timeout=3")
    assert code == 4
    assert "of 3 processes of torchrun 2 did not come within 3 s: RANK 1, 2" in output


def test_an_unused_plugin_leaves_torchrun_to_others(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text("def test_own(): pass")
    environment = {**environment_of(1, 2, 1), "TORCHELASTIC_RUN_ID": "one"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_own.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout


@pytest.mark.parametrize("lost", ["controller", "agent"])
def test_the_session_ends_with_the_process_that_is_lost_and_leaves_nothing(tmp_path: Path, lost: str) -> None:
    (tmp_path / "test_hung.py").write_text(HUNG)
    fifo = tmp_path / "ready"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with two_processes(["test_hung.py"], tmp_path, READY=str(fifo)) as (controller, agent):
        ranks = announced(reader, 2)
        {"controller": controller, "agent": agent}[lost].send_signal(signal.SIGKILL)
        output, of_agent = (process.communicate(timeout=60)[0] for process in (controller, agent))

        assert [pid for pid in ranks if not has_ended(pid)] == []
    os.close(reader)
    if lost == "agent":
        place = f"torchrun's process RANK=1 on node 0 ({socket.gethostname()})"
        assert controller.returncode == 2
        assert f"{place} is lost: its connection has ended" in output
        assert f"rank 1 of 2 died: {place} has ended" in output
    else:
        assert agent.returncode == 2
        assert "RANK=1 on node 0 ends: the controller, rank 0, has ended before the session" in of_agent


def announced(reader: int, count: int) -> set[int]:
    """Return the processes, ranks and fork servers, that so many ranks have written to the pipe."""
    text = ""
    while text.count("\n") < count:
        assert select.select([reader], [], [], 300)[0], "the ranks did not start"
        try:
            text += os.read(reader, 1000).decode()
        except BlockingIOError:  # a rank has opened the pipe, but not written to it yet
            continue
    return {int(pid) for pid in text.split()}


def has_ended(pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 20)[0])
    finally:
        os.close(descriptor)


def test_a_role_is_read_from_torchruns_variables() -> None:
    role = read_role(TWO_BY_TWO)
    assert (role.rank, role.world_size, role.local_rank, role.local_world_size, role.node) == (2, 4, 0, 2, 1)
    assert (role.is_controller, role.several_nodes, role.agent_store) == (False, True, False)
    again = read_role({**TWO_BY_TWO, "TORCHELASTIC_RESTART_COUNT": "1", "GROUP_RANK": "5"})
    assert (again.node, again.attempt != role.attempt) == (5, True)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"RANK": "4"}, "ranks must be smaller than their world sizes, got RANK=4 of WORLD_SIZE=4"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK=2 of LOCAL_WORLD_SIZE=2"),
        ({"MASTER_PORT": "x"}, "MASTER_PORT must be a whole number from 0, got 'x' from the environment"),
        ({"WORLD_SIZE": ""}, "missing WORLD_SIZE in the environment"),
    ],
)
def test_variables_that_make_no_sense_are_refused(changed: dict[str, str], text: str) -> None:
    with pytest.raises(RoleError) as caught:
        read_role({**TWO_BY_TWO, **changed})
    assert text in str(caught.value)


def test_ranks_of_tests_do_not_inherit_the_variables() -> None:
    environment = {**TWO_BY_TWO, "GROUP_RANK": "1", "PATH": "/bin"}
    forget(environment)
    assert environment == {"PATH": "/bin"}
    assert set(REQUIRED) <= set(TWO_BY_TWO)


def test_nodes_are_filled_in_order() -> None:
    topology = Topology(("a", "b"), (0, 0, 0, 1, 1))
    assert [topology.nodes_of(size) for size in (1, 3, 4, 5)] == [1, 1, 2, 2]
    assert str(topology) == "a (3 ranks), b (2 ranks)"
    assert Topology((), ()).nodes_of(4) == 1
    assert [Nodes(min=2).allows(count) for count in (1, 2, 3)] == [False, True, True]
    assert [Nodes(max=1).allows(count) for count in (1, 2)] == [True, False]


@pytest.fixture
def controller() -> Iterator[tuple[Controller, int, bytes]]:
    """Give the controller of two processes, its port, and the secret of the session."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    role = Role(0, 2, 0, 2, 0, "127.0.0.1", store.port, "one/0", agent_store=True)
    controller = Controller(role, 30)
    yield controller, *MeetingStore(role, 30).await_controller()
    controller.close()


def greet(port: int, secret: bytes, versions: str) -> None:
    connection = channel.connect("127.0.0.1", port, secret)
    channel.send(connection, Hello(1, 0, 0, 1, "there", versions, 0.0))


def test_strangers_are_refused_and_delay_nobody(controller: tuple[Controller, int, bytes]) -> None:
    own, port, secret = controller
    with (
        socket.create_connection(("127.0.0.1", port)),
        pytest.raises((channel.RefusedError, OSError, EOFError)),
    ):
        channel.connect("127.0.0.1", port, secret[:-1] + b"?")
    with pytest.raises(JoinError):
        own.join(0.1)
    greet(port, secret, software())
    assert [(member.rank, member.host) for member in own.join(30)] == [
        (0, socket.gethostname()),
        (1, "there"),
    ]


def test_nodes_with_other_software_are_refused(controller: tuple[Controller, int, bytes]) -> None:
    own, port, secret = controller
    greet(port, secret, "Python 3.9.1, torch 1.0")
    with pytest.raises(JoinError) as caught:
        own.join(30)
    expected = f"got Python 3.9.1, torch 1.0 at RANK=1 and {software()} at RANK=0; install the same on all"
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"min": 0}, "min must be a whole number from 1, got 0"),
        ({"max": "2"}, "max must be a whole number from 1, got '2'"),
        ({"min": 2, "max": 1}, "max must be at least min, got min=2, max=1"),
        ({"least": 2}, "takes min and max by name"),
    ],
)
def test_a_marker_of_nodes_that_makes_no_sense_is_refused(arguments: dict[str, Any], text: str) -> None:
    marked = SimpleNamespace(
        nodeid="test_it", get_closest_marker=lambda name: getattr(pytest.mark, name)(**arguments).mark
    )
    with pytest.raises(pytest.Collector.CollectError) as caught:
        wanted_nodes(marked)
    assert f"marker vdist_nodes on test_it: {text}" in str(caught.value)
