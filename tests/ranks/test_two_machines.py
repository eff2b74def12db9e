"""torchrun on two machines starts one session: what runs where, a link that is cut, how all of it ends."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ranks.machines import HOSTS, INTERFACE, CannotPlayError, Machine, sessions_on, two_machines
from tests.ranks.test_torchrun import HUNG, announced, has_ended

TESTS = f"""
import os, socket, subprocess, threading, time
import pytest
import torch
import torch.distributed as dist
from pytest_vdist import RanksHungError, current_rank

HOSTS = {HOSTS!r}

def test_numbers(distributed_run, topology):
    assert (topology.hosts, topology.ranks_per_node) == (HOSTS, (2, 2))
    def body():
        x = torch.tensor([float(dist.get_rank())])
        dist.all_reduce(x)
        numbers = [int(os.environ[name]) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")]
        return x.item(), socket.gethostname(), current_rank().local_rank, numbers
    for size in (3, 4):
        places = [(0, 0), (0, 1), (1, 0), (1, 1)][:size]
        assert distributed_run(body, world_size=size) == [
            (sum(range(size)), HOSTS[node], local, [local, 1 if node and size == 3 else 2, node])
            for node, local in places
        ]

@pytest.mark.vdist_nodes(min=2)
def test_far(distributed_run, world_size):
    assert len(set(distributed_run(socket.gethostname, world_size=world_size))) == 2

@pytest.mark.vdist_nodes(max=1)
def test_near(distributed_run, world_size):
    assert set(distributed_run(socket.gethostname, world_size=world_size)) == {{HOSTS[0]}}

@pytest.mark.vdist_nodes(min=3)
def test_farther(distributed_run):
    distributed_run(socket.gethostname)

def test_stuck_on_the_other_machine(distributed_run):
    def wait_for_ever():
        threading.Event().wait()
    def body():
        print("here is", socket.gethostname())
        wait_for_ever() if dist.get_rank() == 3 else dist.barrier()
    with pytest.raises(RanksHungError) as caught:
        distributed_run(body, world_size=4, timeout=2)
    assert "ranks 0, 1, 2 are in barrier #1" in str(caught.value)
    assert "rank 3 is before its first collective, at wait_for_ever (test_two.py:" in str(caught.value)

def test_cut_link(distributed_run):
    def body():
        x = torch.ones(1)
        dist.all_reduce(x)
        first = dist.get_rank() == 0
        if first:
            for peer in (1, 2, 3):  # they are through with the sum
                dist.recv(x, peer)
            subprocess.run(["ip", "link", "set", {INTERFACE!r}, "down"], check=True)
        else:
            dist.send(x, 0)
        started = time.monotonic()
        try:
            for _ in range(3):  # what is in the sender's buffer arrives later
                dist.all_reduce(x)
            return "sums over a link that was cut"
        except RuntimeError:
            return time.monotonic() - started
        finally:
            if first:
                subprocess.run(["ip", "link", "set", {INTERFACE!r}, "up"], check=True)
    waited = distributed_run(body, world_size=4)
    assert all(isinstance(seconds, float) and seconds < 20 for seconds in waited), waited
    assert max(waited) > 1
"""


@pytest.fixture(scope="module")
def machines() -> Iterator[list[Machine]]:
    """Give two machines, or declare the tests not run."""
    with contextlib.ExitStack() as stack:
        try:
            both = stack.enter_context(two_machines())
        except CannotPlayError as error:
            pytest.skip(f"not run: {error}")
        yield both


def test_one_session_runs_over_two_machines(machines: list[Machine], tmp_path: Path) -> None:
    (tmp_path / "test_two.py").write_text(TESTS)
    suites = ["--pyargs", "pytest_vdist.suites.nodes", "pytest_vdist.suites.objects.test_broadcast_object"]
    limit = "--vdist-distributed-timeout-seconds=3"
    arguments = ["--vdist-backend=cpu", limit, "-v", "-rs", "--junit-xml=junit.xml", "test_two.py", *suites]
    with sessions_on(machines, arguments, tmp_path) as sessions:
        outputs = [session.communicate(timeout=400)[0] for session in sessions]
        left = [machine.processes_left() for machine in machines]

    assert [session.returncode for session in sessions] == [0, 0], outputs[0]
    assert left == [set(), set()]
    first, second = HOSTS
    assert f"vdist: nodes {first} (2 ranks), {second} (2 ranks) [torchrun]" in outputs[0]
    assert f"vdist: ran on {first} (2 ranks), {second} (2 ranks)" in outputs[0]
    assert "vdist: not run for want of nodes: 1 test\n" in outputs[0]
    ran = {line.split()[0] for line in outputs[0].splitlines() if " PASSED (" in line}
    assert {f"test_two.py::test_far[cpu-{size}]" for size in (3, 4)} <= ran
    assert {f"test_two.py::test_near[cpu-{size}]" for size in (1, 2)} <= ran
    assert not {"test_two.py::test_far[cpu-2]", "test_two.py::test_near[cpu-3]"} & ran
    assert 'name="vdist.nodes" value="2"' in (tmp_path / "junit.xml").read_text()
    assert "test_" not in outputs[1]  # the second machine neither collects nor reports


def test_a_machine_whose_torchrun_ends_is_named_and_nothing_is_left(
    machines: list[Machine], tmp_path: Path
) -> None:
    (tmp_path / "test_hung.py").write_text(HUNG.replace("timeout=100", "timeout=100, world_size=4"))
    fifo = tmp_path / "ready"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    environment = {"READY": str(fifo)}
    with sessions_on(
        machines, ["--vdist-backend=cpu", "test_hung.py"], tmp_path, environment=environment
    ) as sessions:
        ranks = announced(reader, 4)
        sessions[1].send_signal(signal.SIGTERM)
        output = sessions[0].communicate(timeout=100)[0]
        sessions[1].communicate(timeout=100)

        assert [pid for pid in ranks if not has_ended(pid)] == []
        assert [machine.processes_left() for machine in machines] == [set(), set()]
    os.close(reader)
    assert sessions[0].returncode != 0
    assert f"on node 1 ({HOSTS[1]}) is lost: ended by SIGTERM" in output
