"""Groups across two nodes: those of torchrun, or else namespaces of this machine.

Each node has its own network interface, host name and /dev/shm. Two ranks are on each that is played. What
such a node is lives in a process that ends with the tests, so nothing is left of it, however they end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_vdist import (
    Coordinator,
    DistributedRun,
    ImplementationSpec,
    Topology,
    current_rank,
    init_settings,
)
from pytest_vdist.judge import movement_input
from pytest_vdist.judge.tensor_dicts import tensor_dict_differences

HOSTS = ("vdist-node-0", "vdist-node-1")
INTERFACE = "vdist"
RANKS_PER_NODE = 2
DEADLINE = 60.0
# Flags of setns(2) and unshare(2), which Python has from 3.12 on.
CLONE_FS, CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWNET = 0x200, 0x20000, 0x4000000, 0x40000000

START_NODE = f"""
mount -t tmpfs none /dev/shm && echo $0 > /proc/sys/kernel/hostname && ip link set lo up && echo ready &&
read line && ip address add $1/30 dev {INTERFACE} && ip link set {INTERFACE} up && echo ready && exec cat
"""

pytestmark = [pytest.mark.vdist_nodes(min=1)]  # played on one, real on more


@dataclass(frozen=True)
class Node:
    """A node, as the process that holds its namespaces."""

    host: str
    process: int

    def enter(self) -> None:
        """Move the calling thread of this process, and the threads that it starts, to the node."""
        library = ctypes.CDLL(None, use_errno=True)
        _check(library.unshare(CLONE_FS))  # threads that share a current directory cannot change mounts
        for kind, flag in (("net", CLONE_NEWNET), ("uts", CLONE_NEWUTS), ("mnt", CLONE_NEWNS)):
            descriptor = os.open(f"/proc/{self.process}/ns/{kind}", os.O_RDONLY)
            _check(library.setns(descriptor, flag))
            os.close(descriptor)
        if socket.gethostname() != self.host:
            raise RuntimeError(f"this rank is on {socket.gethostname()}, not on {self.host}")


@dataclass(frozen=True)
class Placement:
    """Where the ranks are: their numbers node by node, as many on each, and how a rank gets to its node."""

    hosts: tuple[str, str]
    inside: list[list[int]]
    enter: Callable[[int], None]
    init_method: str
    environment: dict[str, str]

    @property
    def across(self) -> list[list[int]]:
        return [list(ranks) for ranks in zip(*self.inside, strict=True)]

    @property
    def everyone(self) -> list[int]:
        return [rank for ranks in self.inside for rank in ranks]

    def host_of(self, rank: int) -> str:
        return self.hosts[rank // len(self.inside[0])]


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.fixture
def placement(
    topology: Topology, most_ranks: int, request: pytest.FixtureRequest, tmp_path: Path
) -> Placement:
    """Place ranks on torchrun's first two nodes; where there are no two, on two that are played."""
    if len(topology.hosts) > 1:
        return _real_placement(topology)
    ranks = len(HOSTS) * RANKS_PER_NODE
    if most_ranks < ranks:
        pytest.skip(f"not run: needs {ranks} ranks, and there are devices or processes for {most_ranks}")
    played: list[Node] = request.getfixturevalue("nodes")
    return Placement(
        HOSTS,
        [[0, 1], [2, 3]],
        lambda rank: played[rank // RANKS_PER_NODE].enter(),
        f"file://{tmp_path}/world",
        {"GLOO_SOCKET_IFNAME": INTERFACE, "NCCL_SOCKET_IFNAME": INTERFACE},
    )


def _real_placement(topology: Topology) -> Placement:
    first, second, *_ = topology.ranks_per_node
    if first != second or first < RANKS_PER_NODE:
        pytest.skip(f"not run: needs {RANKS_PER_NODE} ranks or more on each of two nodes, got {topology}")
    inside = [list(range(first)), list(range(first, 2 * first))]

    def stay(rank: int) -> None:
        assert current_rank().node == rank // first

    return Placement((topology.hosts[0], topology.hosts[1]), inside, stay, "env://", {})


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    """Set two nodes up that reach each other, or declare the test not run and say why."""
    missing = [program for program in ("unshare", "ip", "mount", "sh") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not run: this machine has no {', '.join(missing)} to play two nodes with")
    with contextlib.ExitStack() as stack:
        starting = [
            stack.enter_context(_starting(host, f"10.231.231.{n + 1}")) for n, host in enumerate(HOSTS)
        ]
        first, second = starting
        for each in starting:
            _expect_ready(each)
        connect = ["ip", "link", "add", INTERFACE, "netns", str(first.pid), "type", "veth"]
        connect += ["peer", "name", INTERFACE, "netns", str(second.pid)]
        connected = subprocess.run(  # noqa: S603 - fixed
            connect, capture_output=True, text=True, check=False, timeout=DEADLINE
        )
        if connected.returncode != 0:
            pytest.skip(f"not run: this machine connects no two nodes: {connected.stderr.strip()}")
        for each in starting:
            _write_line(each)
            _expect_ready(each)
        yield [Node(host, each.pid) for host, each in zip(HOSTS, starting, strict=True)]


@contextlib.contextmanager
def _starting(host: str, address: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process in namespaces of its own, which ends when its standard input does."""
    command = ["unshare", "--net", "--uts", "--mount", "sh", "-c", START_NODE, host, address]
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - fixed arguments
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        yield process
        process.communicate(timeout=DEADLINE)


def _write_line(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _expect_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], DEADLINE)[0]:
        process.kill()
        raise TimeoutError(f"a node was not set up within {DEADLINE:g} seconds: {process.args!r}")
    if process.stdout.readline() != "ready\n":
        _, errors = process.communicate(timeout=DEADLINE)
        pytest.skip(f"not run: this machine makes no namespaces: {errors.strip() or 'no reason given'}")


Run = Callable[[Callable[[Callable[..., Coordinator]], Any]], list[Any]]


@pytest.fixture
def run_on_nodes(
    placement: Placement, distributed_run: DistributedRun, implementation: ImplementationSpec
) -> Run:
    """Return a function that calls another one on every rank, with what makes coordinators there."""

    def run(function: Callable[[Callable[..., Coordinator]], Any]) -> list[Any]:
        def body() -> Any:
            placement.enter(current_rank().rank)
            world = implementation.load()
            world.init(init_settings(placement.init_method))
            result = function(world.coordinator)
            world.destroy()
            return result

        return distributed_run(
            body,
            world_size=len(placement.everyone),
            init_process_group=False,
            fresh=True,
            env=placement.environment,
            timeout=DEADLINE,
        )

    return run


def stage_output(rank: int, seed: int, device: torch.device) -> dict[str, Any]:
    """Make what a pipeline stage passes on: large and small tensors, views, and values that are none."""
    hidden = movement_input((257, 1024), torch.float32, rank=rank, seed=seed)
    return {
        "hidden": hidden.to(device),
        "residual": hidden.to(device).t(),
        "positions": torch.arange(5) + rank,
        "nothing": None,
        "nested": {"step": seed, "empty": torch.empty(0, 4, device=device)},
    }


@pytest.mark.vdist_requirement("VD-NODE-001")
def test_groups_across_nodes_work_as_groups_inside_a_node_do(run_on_nodes: Run, placement: Placement) -> None:
    """Sums, gathered parts, objects and dictionaries are right in groups inside nodes, across and of all."""
    partitions = [placement.inside, placement.across, [placement.everyone]]

    def use(group: Coordinator) -> list[Any]:
        own = torch.tensor([float(group.rank)], device=group.device)
        sent = stage_output(group.ranks[0], 3, group.device)
        received = group.broadcast_tensor_dict(sent if group.rank_in_group == 0 else None)
        group.barrier()
        return [
            group.all_reduce(own.clone()).tolist(),
            group.all_gather(own).tolist(),
            group.broadcast(own.clone(), 1).tolist(),
            group.broadcast_object(socket.gethostname() if group.rank_in_group == 0 else None),
            tensor_dict_differences(received, stage_output(group.ranks[0], 3, group.device)),
        ]

    def body(make: Callable[..., Coordinator]) -> list[list[Any]]:
        return [use(make(ranks, name="group")) for ranks in partitions]

    for rank, by_kind in enumerate(run_on_nodes(body)):
        for partition, got in zip(partitions, by_kind, strict=True):
            ranks = next(ranks for ranks in partition if rank in ranks)
            host = placement.host_of(ranks[0])
            assert got == [[float(sum(ranks))], [*map(float, ranks)], [float(ranks[1])], host, []]


@pytest.mark.vdist_requirement("VD-NODE-002")
def test_a_pipeline_runs_across_nodes_while_tensors_are_parallel_inside_them(
    run_on_nodes: Run, placement: Placement
) -> None:
    """Dictionaries go to the other node and back, whole or in slices, and each stage sums inside its node."""
    inside, across = placement.inside, placement.across
    parts = sum(range(1, len(inside[0]) + 1))

    def body(make: Callable[..., Coordinator]) -> list[str]:
        tensor_parallel, pipeline = make(inside, name="tp"), make(across, name="pp")
        first = pipeline.rank_in_group == 0
        found = []
        for step in range(3):
            # The ranks of a stage hold the same, as they do after an all_reduce.
            passed = stage_output(100 * step, step, pipeline.device)
            part = torch.arange(1000.0, device=pipeline.device) * (tensor_parallel.rank_in_group + 1)
            if not torch.equal(tensor_parallel.all_reduce(part).cpu(), torch.arange(1000.0) * parts):
                found.append(f"step {step}: the sum inside the node is wrong")
            slices = tensor_parallel if step else None
            if first:
                pipeline.send_tensor_dict(passed, all_gather_group=slices)
            received = pipeline.recv_tensor_dict(all_gather_group=slices)
            found += [f"step {step}: {each}" for each in tensor_dict_differences(received, passed)]
            if not first:
                handles = pipeline.isend_tensor_dict(passed, all_gather_group=slices)
                for handle in handles:
                    handle.wait()
        pipeline.barrier()
        return found

    assert run_on_nodes(body) == [[] for _ in placement.everyone]
